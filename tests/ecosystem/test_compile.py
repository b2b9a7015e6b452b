"""torch.compile'd training loops: the same bits as eager ones, one graph, and nothing compiled again in later steps."""

import helpers
import pytest
import torch
from torch._dynamo.testing import CompileCounter

from extrap_kernels import ExtrapSGD

STEPS = 5
OPTIONS = {
    "past_gradient": {"momentum": 0.9},
    "noise": {"momentum": 0.9, "noise": "gaussian"},
    "extragradient": {"extrapolation": "extragradient"},
    "extrapolate": {"extrapolation": "extragradient"},
}


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def train(compiled, backend, options, closure=False, extrapolate=False):
    """What `compiled` names (the loss, the step, nothing) is compiled; returns what was trained, and the counter."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    batches = torch.randn(STEPS, 16, 4).unbind()
    optimizer = ExtrapSGD(model.parameters(), lr=0.1, backend=backend, **options)
    # The learning rate is another Python float in each step.
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    counter = CompileCounter()

    def loss_of(batch):
        return model(batch).square().mean()

    if compiled == "loss":
        loss_of = torch.compile(loss_of, backend=counter)

    def evaluate(batch):
        optimizer.zero_grad()
        loss = loss_of(batch)
        loss.backward()
        return loss

    def step(batch):
        if closure:
            return optimizer.step(lambda: evaluate(batch))
        loss = evaluate(batch)
        if extrapolate:
            optimizer.extrapolate()
            evaluate(batch)
        optimizer.step()
        return loss

    if compiled == "step":
        step = torch.compile(step, backend=counter)
    losses = []
    for t, batch in enumerate(batches):
        # State and gradients come into being in the first step; torch reuses graphs for both from the second on.
        with torch._dynamo.config.patch(error_on_recompile=t > 1, fail_on_recompile_limit_hit=True):
            losses.append(step(batch).detach())
        if t == 1:
            graphs = counter.frame_count
        scheduler.step()
    assert counter.frame_count == graphs
    return helpers.snapshot(optimizer), losses, counter.frame_count


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("compiled", ["loss", "step"])
def test_compiled_equals_eager(backend, compiled, name):
    how = {"closure": name == "extragradient", "extrapolate": name == "extrapolate"}
    *expected, none = train("nothing", backend, OPTIONS[name], **how)
    *actual, graphs = train(compiled, backend, OPTIONS[name], **how)
    helpers.assert_same_bits(actual, expected)
    # The optimizer adds no graph to the model's. A closure that it calls is code of its own, to be compiled by itself.
    assert (none, graphs) == (0, 0 if compiled == "step" and how["closure"] else 1)


def test_modes_in_a_compiled_function(backend):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = ExtrapSGD(model.parameters(), lr=0.1, backend=backend)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    batch = torch.randn(16, 4)

    @torch.compile(backend=CompileCounter())
    def step():
        optimizer.train()
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        optimizer.eval()
        return model(batch).square().mean()

    for t in range(STEPS):
        with torch._dynamo.config.patch(error_on_recompile=t > 1):
            loss = step()
        scheduler.step()
        helpers.assert_same_bits([p.data for p in model.parameters()], [s["base"] for s in optimizer.state.values()])
        helpers.assert_same_bits(loss, model(batch).square().mean())


def test_default_compiler(backend):
    """With inductor, whose code rounds in its own way."""
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 1)
        optimizer = ExtrapSGD(model.parameters(), lr=0.1, momentum=0.9, backend=backend)

        def step(batch, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()

        if compiled:
            step = torch.compile(step)
        for batch in torch.randn(3, 16, 4):
            step(batch)
        results.append([p.detach().clone() for p in model.parameters()])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)
