"""torch.compile'd training loops: the same bits as eager ones, one graph, and nothing compiled again in later steps."""

import logging

import helpers
import pytest
import torch
from torch._dynamo.testing import CompileCounter

from extrap_kernels import ExtrapAdamW, ExtrapLAMB, ExtrapSGD

STEPS = 5
CASES = {
    "sgd": (ExtrapSGD, torch.float32, {"momentum": 0.9}),
    "adamw": (ExtrapAdamW, torch.bfloat16, {"max_grad_norm": 0.01}),
    "lamb": (ExtrapLAMB, torch.float32, {"noise": "gaussian", "noise_scale": "tensor"}),
    "extragradient": (ExtrapSGD, torch.float32, {"extrapolation": "extragradient"}),
    "extrapolate": (ExtrapAdamW, torch.bfloat16, {"extrapolation": "extragradient"}),
}


@pytest.fixture(autouse=True)
def quiet_compiler(caplog):
    """A fresh compiler, which has nothing to complain about."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
    records = [record for record in caplog.get_records("call") if record.name.startswith("torch._dynamo")]
    assert not [record.getMessage() for record in records if record.levelno >= logging.WARNING]


def train(compiled, backend, name):
    """What `compiled` names (the loss, the step, nothing) is compiled; returns what was trained, and the counter."""
    optimizer_type, dtype, options = CASES[name]
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    model.to(helpers.DEVICES[backend], dtype)
    batches = torch.randn(STEPS, 16, 4, dtype=dtype).to(helpers.DEVICES[backend]).unbind()
    optimizer = optimizer_type(model.parameters(), lr=0.1, backend=backend, **options)
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
        if name == "extragradient":
            loss = optimizer.step(lambda: evaluate(batch))
        else:
            loss = evaluate(batch)
            if name == "extrapolate":
                optimizer.extrapolate()
                evaluate(batch)
            optimizer.step()
        scheduler.step()
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
    assert counter.frame_count == graphs
    return helpers.snapshot(optimizer), losses, counter.frame_count


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("compiled", ["loss", "step"])
def test_compiled_equals_eager(backend, compiled, name):
    *expected, none = train("nothing", backend, name)
    *actual, graphs = train(compiled, backend, name)
    helpers.assert_same_bits(actual, expected)
    # The optimizer adds no graph to the model's. A closure that it calls is code of its own, to be compiled by itself.
    assert (none, graphs) == (0, 0 if compiled == "step" and name == "extragradient" else 1)


def test_steps_of_many_optimizers(backend):
    """Nothing is compiled again for the second one: torch would give up at a number of them, with a warning."""
    device = helpers.DEVICES[backend]
    layers = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)).to(device)
    optimizers = [ExtrapSGD(layer.parameters(), backend=backend) for layer in layers]

    @torch.compile(backend=CompileCounter())
    def step():
        layers(torch.ones(4, device=device)).sum().backward()
        for optimizer in optimizers:
            optimizer.step()

    with torch._dynamo.config.patch(error_on_recompile=True):
        step()
    assert all(state["step"] == 1 for optimizer in optimizers for state in optimizer.state.values())


def test_grad_scaler(backend):
    """A GradScaler's two gradients and a step it skips, inside a compiled function."""
    device = helpers.DEVICES[backend]
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 1).to(device)
        optimizer = ExtrapAdamW(model.parameters(), max_grad_norm=0.1, backend=backend)
        scaler = torch.amp.GradScaler(device, init_scale=2.0**8)

        def step(batch, model=model, optimizer=optimizer, scaler=scaler):
            optimizer.zero_grad()
            scaler.scale(model(batch).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()

        if compiled:
            step = torch.compile(step, backend=CompileCounter())
        for t, batch in enumerate(torch.randn(STEPS, 16, 4).to(device)):
            with torch._dynamo.config.patch(error_on_recompile=t > 1):
                step(batch * torch.inf if t == 2 else batch)
        results.append((helpers.snapshot(optimizer), scaler.get_scale()))
    assert {int(state["step"]) for state in optimizer.state.values()} == {STEPS - 1}
    helpers.assert_same_bits(*results)


def test_modes_in_a_compiled_function(backend):
    device = helpers.DEVICES[backend]
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1).to(device)
    optimizer = ExtrapSGD(model.parameters(), lr=0.1, backend=backend)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    batch = torch.randn(16, 4).to(device)

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
    device = helpers.DEVICES[backend]
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 1).to(device)
        optimizer = ExtrapSGD(model.parameters(), lr=0.1, momentum=0.9, backend=backend)

        def step(batch, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()

        if compiled:
            step = torch.compile(step)
        for batch in torch.randn(3, 16, 4).to(device):
            step(batch)
        results.append([p.detach().clone() for p in model.parameters()])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)
