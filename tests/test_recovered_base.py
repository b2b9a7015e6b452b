"""No base iterate is stored where ``x = y + inner_lr * m`` gives it back; all else is as if it were."""

import copy
import io

import helpers
import pytest
import torch
import torch.distributed as dist

from extrap_kernels import ExtrapAdamW, ExtrapSGD
from extrap_kernels.distributed.averaging import average_base
from extrap_kernels.state import layout as state_layout

NAMES = ("scalar", "three", "empty", "matrix", "channels_last", "transposed", "columns")
DTYPES = (torch.float32, torch.float64, torch.complex64)
SGD = {"momentum": 0.9, "weight_decay": 0.01}
CASES = {
    "sgd, momentum": (ExtrapSGD, {**SGD, "extrapolation": "momentum", "extrap_lr": 0.3}),
    "sgd, past_update": (ExtrapSGD, {**SGD, "extrapolation": "past_update", "extrap_ratio": 5.0}),
    "sgd, ascent": (ExtrapSGD, {**SGD, "extrapolation": "momentum", "extrap_lr": -0.3, "dampening": 0.1}),
    "sgd, radius": (ExtrapSGD, {**SGD, "extrapolation": "momentum", "extrap_norm": "global", "extrap_lr": 0.3}),
    "adamw, momentum": (ExtrapAdamW, {"extrapolation": "momentum", "extrap_lr": 0.3, "weight_decay": 0.01}),
}
# What else has a stored base: the same steps, but for roundings of x.
STORED = {
    "16 bits": (ExtrapSGD, torch.bfloat16, {**SGD, "extrapolation": "momentum"}),
    "compact": (ExtrapSGD, torch.float32, {**SGD, "extrapolation": "momentum", "state_dtype": torch.bfloat16}),
    "nesterov": (ExtrapSGD, torch.float32, {**SGD, "extrapolation": "past_update", "nesterov": True}),
    "no momentum": (ExtrapSGD, torch.float32, {"extrapolation": "past_update"}),
    "noise": (ExtrapSGD, torch.float32, {**SGD, "extrapolation": "momentum", "noise": "uniform"}),
    "preconditioned": (ExtrapAdamW, torch.float32, {"extrapolation": "past_update"}),
    "adaptive": (ExtrapSGD, torch.float32, {**SGD, "extrapolation": "momentum", "extrap_scale": "adaptive"}),
    "past gradient": (ExtrapSGD, torch.float32, SGD),
}


@pytest.fixture(params=CASES, ids=str)
def case(request):
    return CASES[request.param]


def make(backend, case, dtype=torch.float32, names=NAMES, **options):
    optimizer_type, own = case
    optimizer = optimizer_type(helpers.zoo(backend, dtype, names), lr=0.1, backend=backend, **{**own, **options})
    return optimizer, helpers.parameters_of(optimizer)


def step(optimizer, seed, absent=()):
    params = helpers.parameters_of(optimizer)
    helpers.set_gradients(params, seed)
    for k in absent:
        params[k].grad = None
    optimizer.step()


def bases(optimizer):
    return [optimizer.base_of(p).detach().clone() for p in helpers.parameters_of(optimizer)]


def held(optimizer):
    return [p.detach().clone() for p in helpers.parameters_of(optimizer)]


@pytest.fixture
def stored(monkeypatch):
    """Within, every base iterate is stored."""

    def store(run):
        with monkeypatch.context() as patch:
            patch.setattr(state_layout.RuleSpec, "recovers_base", lambda *_: False)
            return run()

    return store


def assert_near(actual, expected, ulps):
    """To so many units in the last place of the largest number."""
    for a, e in zip(actual, expected, strict=True):
        if a.numel() > 0:
            unit = torch.finfo(a.dtype).eps * float(e.abs().max())
            assert float((a - e).abs().max()) <= ulps * unit


@pytest.mark.parametrize("dtype", DTYPES, ids=helpers.describe)
def test_state_is_that_of_the_plain_optimizer(backend, case, dtype):
    optimizer, params = make(backend, case, dtype)
    step(optimizer, seed=0)
    plain, others = make(backend, case, dtype, extrapolation=None, extrap_norm=None)
    step(plain, seed=0)
    for p, q in zip(params, others):
        assert set(optimizer.state[p]) == {*plain.state[q], "inner_lr"}
        assert optimizer.state[p]["inner_lr"].numel() == 1


@pytest.mark.parametrize("name", STORED)
def test_where_a_base_is_stored(backend, name):
    optimizer_type, dtype, options = STORED[name]
    optimizer, params = make(backend, (optimizer_type, options), dtype)
    step(optimizer, seed=0)
    assert all("base" in optimizer.state[p] and "inner_lr" not in optimizer.state[p] for p in params)


@pytest.mark.parametrize("dtype", DTYPES, ids=helpers.describe)
def test_steps_are_those_with_a_stored_base(backend, case, dtype, stored):
    """To a few roundings a step, with absent and late gradients, another learning rate, and a pause in eval mode."""

    def run():
        optimizer, params = make(backend, case, dtype)
        for t in range(6):
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + t)
            step(optimizer, seed=t, absent={0: (3,), 2: (1, 3), 3: (3,)}.get(t, ()))
            if t == 4:
                optimizer.eval()
                optimizer.train()
        assert ("base" in optimizer.state[params[0]]) == ("inner_lr" not in optimizer.state[params[0]])
        return bases(optimizer), held(optimizer)

    found, expected = run(), stored(run)
    for a, e in zip(found, expected):
        assert_near(a, e, ulps=24)


def test_no_drift_in_ten_thousand_steps(stored):
    """Roundings of x do not add up: a random walk of them stays below 2 times sqrt(10,000) units in the last place."""

    def run():
        generator = torch.Generator().manual_seed(0)
        param = torch.nn.Parameter(torch.rand(4096, generator=generator) + 0.5)
        optimizer = ExtrapSGD([param], lr=1e-4, momentum=0.9, extrapolation="past_update", extrap_ratio=5.0)
        for _ in range(10_000):
            param.grad = torch.randn(4096, generator=generator)
            optimizer.step()
        return optimizer.base_of(param).double()

    found, expected = run(), stored(run)
    difference = found - expected
    assert float(difference.abs().max()) < 200 * torch.finfo(torch.float32).eps
    assert abs(float(difference.mean())) < 5 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("dtype", DTYPES, ids=helpers.describe)
def test_modes_are_exact(backend, case, dtype):
    optimizer, params = make(backend, case, dtype)
    for t in range(2):
        step(optimizer, seed=t, absent=(3,))
    x, y = bases(optimizer), held(optimizer)
    assert any(not torch.equal(a, b) for a, b in zip(x, y))
    for _ in range(2):
        optimizer.eval()
        helpers.assert_same_bits(held(optimizer), x)
        helpers.assert_same_bits(bases(optimizer), x)
        optimizer.train()
        helpers.assert_same_bits(held(optimizer), y)
        helpers.assert_same_bits(bases(optimizer), x)


def test_what_is_changed_in_eval_mode_counts(backend, case):
    optimizer, params = make(backend, case)
    for t in range(2):
        step(optimizer, seed=t)
    y = held(optimizer)
    optimizer.eval()
    with torch.no_grad():
        params[3][0] = 3.0
    optimizer.train()
    assert_near([optimizer.base_of(params[3])[0]], [torch.full_like(params[3][0], 3.0)], ulps=1)
    helpers.assert_same_bits(params[3].detach()[1:], y[3][1:])


def test_set_base(backend, case):
    """In either mode, and with a stored base as well."""
    value = 2.0
    for options in (
        {},
        {"extrapolation": "past_gradient", "extrap_norm": None},
        {"extrapolation": None, "extrap_norm": None},
    ):
        for evaluating in (False, True):
            optimizer, params = make(backend, case, **options)
            for t in range(2):
                step(optimizer, seed=t)
            if evaluating:
                optimizer.eval()
            wanted = torch.full_like(params[3], value)
            optimizer.set_base(params[3], wanted)
            assert_near([optimizer.base_of(params[3])], [wanted], ulps=1)
            if evaluating:
                helpers.assert_same_bits(params[3].detach(), wanted.detach())
                optimizer.train()
                assert_near([optimizer.base_of(params[3])], [wanted], ulps=1)


def test_set_base_between_the_halves_of_an_extragradient_step(backend):
    """The second gradient is taken where the first half went, and updates the new base iterate."""
    halved, plain = (torch.nn.Parameter(torch.ones(3, device=helpers.DEVICES[backend])) for _ in range(2))
    groups = [{"params": [halved]}, {"params": [plain], "extrapolation": None}]
    optimizer = ExtrapSGD(groups, lr=0.5, extrapolation="extragradient", backend=backend)
    halved.grad = plain.grad = torch.ones_like(halved)
    optimizer.extrapolate()
    for param in (halved, plain):
        optimizer.set_base(param, torch.full_like(param, 2.0))
    assert halved.tolist() == [0.5] * 3 and plain.tolist() == [2.0] * 3
    optimizer.step()
    assert halved.tolist() == plain.tolist() == [1.5] * 3


def test_set_base_of_another_shape_changes_nothing(backend, case):
    optimizer, params = make(backend, case)
    step(optimizer, seed=0)
    before = helpers.snapshot(optimizer)
    with pytest.raises(ValueError, match=r"Invalid value of shape \(1,\) for a parameter of shape"):
        optimizer.set_base(params[3], torch.ones(1))
    helpers.assert_same_bits(helpers.snapshot(optimizer), before)


@pytest.mark.parametrize("evaluating", [False, True])
@pytest.mark.parametrize("compact", [False, True])
def test_saved_and_resumed_bit_for_bit(backend, case, evaluating, compact):
    through, params = make(backend, case)
    for t in range(2):
        step(through, seed=t, absent=(3,))
    if evaluating:
        through.eval()
    file = io.BytesIO()
    torch.save([through.float32_state_dict() if compact else through.state_dict(), held(through)], file)
    resumed, others = make(backend, case)
    file.seek(0)
    saved, values = torch.load(file, weights_only=True)
    resumed.load_state_dict(saved)
    with torch.no_grad():
        for p, value in zip(others, values):
            p.copy_(value)
    for each in (through, resumed):
        each.train()
        step(each, seed=5)
    helpers.assert_same_bits(helpers.snapshot(resumed), helpers.snapshot(through))


@pytest.mark.parametrize("evaluating", [False, True])
def test_a_state_dict_with_a_stored_base_loads(backend, case, stored, evaluating):
    def save():
        optimizer, params = make(backend, case)
        for t in range(2):
            step(optimizer, seed=t)
        x = bases(optimizer)
        if evaluating:
            optimizer.eval()
        return copy.deepcopy(optimizer.state_dict()), held(optimizer), x

    saved, values, x = stored(save)
    optimizer, params = make(backend, case)
    with torch.no_grad():
        for p, value in zip(params, values):
            p.copy_(value)
    optimizer.load_state_dict(saved)
    helpers.assert_same_bits(bases(optimizer), x)
    optimizer.train()
    step(optimizer, seed=2)
    assert all("base" not in optimizer.state[p] and "inner_lr" in optimizer.state[p] for p in params)
    assert any((a != b).any() for a, b in zip(x, bases(optimizer)))


@pytest.mark.parametrize("broken", [float("nan"), "much", None])
def test_a_broken_state_dict_changes_nothing(backend, case, broken):
    optimizer, params = make(backend, case)
    step(optimizer, seed=0)
    saved = copy.deepcopy(optimizer.state_dict())
    if broken is None:
        del saved["state"][0]["inner_lr"]
    else:
        saved["state"][0]["inner_lr"] = torch.tensor(broken) if isinstance(broken, float) else broken
    before = helpers.snapshot(optimizer)
    with pytest.raises(ValueError, match="inner_lr"):
        optimizer.load_state_dict(saved)
    helpers.assert_same_bits(helpers.snapshot(optimizer), before)


OTHERS = [
    {"extrapolation": None, "extrap_norm": None},
    {"extrapolation": "past_gradient", "extrap_norm": None},
    {"extrap_scale": "adaptive"},
    {"noise": "uniform", "noise_std": 0.0},
    {"state_dtype": torch.bfloat16},
    {"state_dtype": torch.uint8},
]


@pytest.mark.parametrize("other", OTHERS, ids=helpers.describe)
@pytest.mark.parametrize("saving", [False, True])
def test_options_are_switched_in_mid_run(backend, case, other, saving):
    """There and back: x is what it was when the step began, whatever holds it; also if it is saved in between."""
    optimizer, params = make(backend, case)
    group = optimizer.param_groups[0]
    own = {name: group[name] for name in other}
    for t, options in enumerate((own, other, own, other)):
        group.update({**options, "lr": 0.1})
        before = bases(optimizer)
        if saving:
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            group = optimizer.param_groups[0]
            assert_near(bases(optimizer), before, ulps=1)
        group["lr"] = 0.0
        step(optimizer, seed=t, absent=(3,) if t == 0 else ())
        helpers.assert_same_bits(
            [optimizer.state[p].get("step", torch.zeros(())).float().cpu() for p in params[:3]],
            [torch.tensor(t + 1.0)] * 3,
        )
        assert_near(bases(optimizer), before, ulps=2)


def test_a_scaler_that_skips_changes_nothing(backend, case):
    optimizer, params = make(backend, case)
    for t in range(2):
        step(optimizer, seed=t)
    before = helpers.snapshot(optimizer)
    device = helpers.DEVICES[backend]
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(2.0, device=device), torch.tensor(1.0, device=device)
    step(optimizer, seed=2)
    del optimizer.grad_scale, optimizer.found_inf
    helpers.assert_same_bits(helpers.snapshot(optimizer), before)


def test_bits_are_those_of_the_reference(backend, case):
    if case[1].get("extrap_norm"):
        pytest.skip("norms may differ in the last bit")

    def run(name):
        optimizer, _ = make(name, case)
        for t in range(4):
            step(optimizer, seed=t, absent=(3,) if t % 2 else ())
        return helpers.snapshot(optimizer)

    helpers.assert_same_bits(run(backend), run("reference"))


def test_a_parameter_that_takes_over_a_state_starts_from_what_it_holds(backend, case):
    """As where Gaussian Splatting resets parameters: the displacement of the old one is not its own."""
    optimizer, params = make(backend, case, names=("matrix",))
    for t in range(2):
        step(optimizer, seed=t)
    new = torch.nn.Parameter(torch.full_like(params[0], 2.0))
    optimizer.state[new] = optimizer.state.pop(params[0])
    optimizer.param_groups[0].update({"params": [new], "lr": 0.0})
    step(optimizer, seed=3)
    assert_near([optimizer.base_of(new)], [torch.full_like(new, 2.0)], ulps=2)


@pytest.fixture
def single_process_group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_averages_of_base_iterates(case, single_process_group):
    optimizer, params = make("cpu", case)
    for t in range(2):
        step(optimizer, seed=t)
    x, y = bases(optimizer), held(optimizer)
    average_base(optimizer)
    assert_near(bases(optimizer), x, ulps=2)
    assert_near(held(optimizer), y, ulps=2)
    optimizer.eval()
    x = held(optimizer)
    average_base(optimizer)
    assert_near(held(optimizer), x, ulps=2)
    optimizer.train()
    assert_near(bases(optimizer), x, ulps=2)
