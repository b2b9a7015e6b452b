"""torch.amp.GradScaler: steps are those of an unscaled run, and a skipped step changes nothing."""

import helpers
import oracle
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from extrap_kernels import ExtrapAdamW, ExtrapLAMB, ExtrapLARS, ExtrapSGD, backends

OPTIONS = {
    "plain": {},
    "adamw": {"optimizer": ExtrapAdamW},
    "lamb": {"optimizer": ExtrapLAMB, "weight_decay": 0.1},
    "lars": {"optimizer": ExtrapLARS, "momentum": 0.9, "weight_decay": 0.1},
    "noisy": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "noise": "gaussian", "noise_scale": "gradient"},
    "extragradient": {"momentum": 0.9, **helpers.EXTRAGRADIENT},
}
# Powers of two: scaling by them is exact, so that runs with and without a scaler give the same bits.
SCALE = 2.0**10


def make(backend, dtype, options):
    options = {"optimizer": ExtrapSGD, **options}
    return options.pop("optimizer")(helpers.zoo(backend, dtype), lr=0.1, backend=backend, **options)


def make_scaler(backend):
    scaler = torch.amp.GradScaler(helpers.DEVICES[backend], init_scale=SCALE, growth_interval=3)
    scaler.scale(torch.ones((), device=helpers.DEVICES[backend]))  # makes the scale tensor, as the first loss does
    return scaler


def backward(optimizer, scale, seed, overflow=False):
    """Gradients that a loss multiplied by `scale` would have left."""
    for k, p in enumerate(helpers.parameters_of(optimizer)):
        p.grad = helpers.random_like(p, 1000 * seed + k).mul_(scale)
        optimizer.local_gradients[p] = helpers.random_like(p, 1000 * seed + 500 + k).mul_(scale)
    if overflow:
        p.grad.view(-1)[-1] = torch.inf


def take(optimizer, scaler, seed, overflow=False, unscale=False):
    """One step; without a scaler, the same step of unscaled gradients."""
    scale = scaler.get_scale() if scaler else 1.0
    if optimizer.param_groups[0]["extrapolation"] == "extragradient":
        backward(optimizer, scale, seed + 100)
        optimizer.extrapolate(scale)
    backward(optimizer, scale, seed, overflow)
    if unscale:
        scaler.unscale_(optimizer)
        for local in optimizer.local_gradients.values():
            local /= scale
    if scaler:
        scaler.step(optimizer)
        scaler.update()
    else:
        optimizer.step()


def works_on_device(backend):
    return backends.resolve(backend, torch.device(helpers.DEVICES[backend])).on_device


def assert_at_start(optimizer):
    """The state is that of parameters that have taken no step."""
    for p, state in optimizer.state.items():
        helpers.assert_same_bits(state["base"], p.detach().to(state["base"].dtype))
        assert all(not value.any() for name, value in state.items() if name != "base")


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("dtype", helpers.DTYPES[:4], ids=helpers.describe)
@pytest.mark.parametrize("skipped", [(), (0,), (2,), (0, 1, 4)], ids=str)
def test_steps_are_those_of_an_unscaled_run(backend, dtype, options, skipped):
    """And no skipped step is seen: neither the first one nor one in the middle."""
    if dtype == torch.bfloat16 and helpers.DEVICES[backend] == "cuda":
        pytest.skip("torch's GradScaler does not unscale bfloat16 on a GPU")
    scaled, plain = (make(backend, dtype, options) for _ in range(2))
    scaler = make_scaler(backend)
    for t in range(5):
        before = helpers.snapshot(scaled)
        scale = scaler.get_scale()
        take(scaled, scaler, seed=t, overflow=t in skipped)
        if t in skipped:
            assert scaler.get_scale() == scale / 2
            params, state = helpers.snapshot(scaled)
            helpers.assert_same_bits(params, before[0])
            if t == 0 and (options is OPTIONS["extragradient"] or works_on_device(backend)):
                assert_at_start(scaled)  # made by extrapolate(), or by a step that cannot know that it is skipped
            else:
                helpers.assert_same_bits(state, before[1])
        else:
            take(plain, None, seed=t)
    helpers.assert_same_bits(helpers.snapshot(scaled), helpers.snapshot(plain))


def test_skipped_first_step_of_a_warmup_leaves_no_state(backend):
    """A learning rate of 0 is no reason to create it, where the step is known to be skipped."""
    params = helpers.zoo(backend)
    optimizer, scaler = ExtrapSGD(params, lr=0.0, backend=backend), make_scaler(backend)
    take(optimizer, scaler, seed=0, overflow=True)
    assert bool(optimizer.state) == works_on_device(backend)
    assert_at_start(optimizer)


def test_any_scale_divides_the_gradients_and_the_local_ones(backend):
    optimizer = make(backend, torch.float32, OPTIONS["noisy"])
    params = helpers.parameters_of(optimizer)
    backward(optimizer, 3.0, seed=0)
    oracles = [oracle.SGD(p, index) for index, p in enumerate(params)]
    for p, expected in zip(params, oracles):
        expected.step(optimizer.param_groups[0], p.grad, optimizer.local_gradients[p], scale=3.0)
    # What the scaler sets around the step.
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(3.0), torch.tensor(0.0)
    optimizer.step()
    oracle.assert_matches(optimizer, oracles)


@pytest.mark.parametrize("overflow", [False, True])
def test_unscale_before_the_step_is_not_done_again(backend, overflow):
    unscaled, plain = (make(backend, torch.float32, OPTIONS["noisy"]) for _ in range(2))
    take(plain, make_scaler(backend), seed=0, overflow=overflow)
    take(unscaled, make_scaler(backend), seed=0, overflow=overflow, unscale=True)
    helpers.assert_same_bits(helpers.snapshot(unscaled), helpers.snapshot(plain))


def test_scaler_makes_no_pass_of_its_own(backend):
    """It leaves dividing the gradients to the step, and they stay scaled."""
    optimizer, scaler = make(backend, torch.float32, {}), make_scaler(backend)
    backward(optimizer, SCALE, seed=0)
    gradients = [p.grad.clone() for p in helpers.parameters_of(optimizer)]
    scaler.step(optimizer)
    helpers.assert_same_bits([p.grad for p in helpers.parameters_of(optimizer)], gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=helpers.describe)
def test_model_under_autocast(backend, dtype):
    """The loop of torch's documentation, from loss to loss, with overflow in its first step and in a later one."""
    torch.manual_seed(0)
    device = helpers.DEVICES[backend]
    model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1)).to(device)
    inputs = torch.randn(64, 4, device=device)
    targets = inputs.square().sum(dim=1, keepdim=True)
    optimizer = ExtrapSGD(model.parameters(), lr=0.02, momentum=0.9, backend=backend)
    scaler = torch.amp.GradScaler(device, init_scale=2.0**8)
    losses = []
    for t in range(100):
        with torch.autocast(device, dtype=dtype):
            loss = torch.nn.functional.mse_loss(model(inputs).float(), targets)
        optimizer.zero_grad()
        scaler.scale(loss * (torch.inf if t in (0, 7) else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[1] == losses[0] and losses[8] == losses[7]
    assert losses[-1] < 0.1 * losses[0]
    assert all(optimizer.state[p]["step"] == 98 for p in model.parameters())


def test_refused_step_can_be_taken_again(backend):
    """It leaves no scale behind, which the next one would be divided by once more."""
    optimizer, twin = (make(backend, torch.float32, {"momentum": 0.9}) for _ in range(2))
    scaler = make_scaler(backend)
    for each in (optimizer, twin):
        take(each, None, seed=0)
    optimizer.eval()
    backward(optimizer, SCALE, seed=1)
    with pytest.raises(RuntimeError, match="eval mode"):
        scaler.step(optimizer)
    optimizer.train()
    scaler.step(optimizer)
    scaler.update()
    take(twin, None, seed=1)
    for each in (optimizer, twin):
        take(each, None, seed=2)
    helpers.assert_same_bits(helpers.snapshot(optimizer), helpers.snapshot(twin))


@pytest.mark.parametrize("own", ["hook", "global hook", "subclass"])
def test_code_around_the_step_sees_unscaled_gradients(backend, own):
    """As with torch.optim: what clips there must not clip by the scale."""
    seen = []

    def look(*_):
        seen.append(p.grad.clone())

    class Looking(ExtrapSGD):
        def step(self, closure=None):
            look()
            return super().step(closure)

    p = torch.nn.Parameter(torch.ones(3, device=helpers.DEVICES[backend]))
    optimizer = (Looking if own == "subclass" else ExtrapSGD)([p], lr=0.25, extrapolation=None, backend=backend)
    scaler, handle = make_scaler(backend), None
    if own == "hook":
        handle = optimizer.register_step_pre_hook(look)
    elif own == "global hook":
        handle = register_optimizer_step_pre_hook(look)
    try:
        for gradient in (1.0, torch.inf, 1.0):
            p.grad = torch.full_like(p, gradient * scaler.get_scale())
            scaler.step(optimizer)
            scaler.update()
    finally:
        if handle is not None:
            handle.remove()
    assert [g.tolist() for g in seen] == [[1.0] * 3] * 2  # a step with infinities is left out
    assert p.tolist() == [0.5] * 3
