"""What users and libraries write into parameters between steps counts, or they are told that it does not."""

import copy
import warnings

import helpers
import pytest
import torch

from extrap_kernels import ExtrapAdam, ExtrapLAMB, ExtrapLARS, ExtrapSGD

PLAIN = {"extrapolation": None}


def one(backend, value=1.0, dtype=torch.float32, shape=(5,)):
    return torch.nn.Parameter(torch.full(shape, value, dtype=dtype, device=helpers.DEVICES[backend]))


def step(optimizer, gradient=1.0):
    for p in helpers.parameters_of(optimizer):
        p.grad = torch.full_like(p, gradient)
    optimizer.step()


def test_two_optimizers_step_one_parameter(backend):
    p = one(backend)
    pair = [ExtrapSGD([p], lr=0.25, backend=backend, **PLAIN) for _ in range(2)]
    for _ in range(2):
        for optimizer in pair:
            step(optimizer)
    assert p.tolist() == [0.0] * 5


def clamp(p):
    p.clamp_(-0.5, 0.5)


def clamp_data(p):
    p.data.clamp_(-0.5, 0.5)


def mask(p):
    p.mul_(torch.tensor([1, 0, 1, 0, 1], device=p.device))


def load(p):
    p.copy_(torch.linspace(-1, 1, 5).to(p))


CHANGES = [clamp, clamp_data, mask, load]


REAL_DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", REAL_DTYPES, ids=helpers.describe)
@pytest.mark.parametrize("change", CHANGES)
def test_changes_under_the_plain_optimizer_are_those_of_torch(backend, change, dtype):
    p = one(backend, 0.7, dtype)
    optimizer = ExtrapSGD([p], lr=0.25, momentum=0.5, backend=backend, **PLAIN)
    exact = torch.promote_types(dtype, torch.float32)
    q = torch.nn.Parameter(p.detach().to(exact))
    theirs = torch.optim.SGD([q], lr=0.25, momentum=0.5, foreach=False)
    for t in range(4):
        step(optimizer, 1.0 + t)
        q.grad = torch.full_like(q, 1.0 + t)
        theirs.step()
        with torch.no_grad():
            before = p.detach().clone()
            change(p)
            q.copy_(torch.where(p != before, p.to(exact), q))
    assert torch.equal(p, q.to(dtype))
    assert torch.equal(optimizer.base_of(p), q)


@pytest.mark.parametrize("extrapolation", [None, "extragradient"])
@pytest.mark.parametrize("dtype", REAL_DTYPES, ids=helpers.describe)
def test_changes_show_in_every_mode(backend, dtype, extrapolation):
    """Where parameters hold the base iterate between steps, nobody has to change the mode to change it."""
    p = one(backend, 0.7, dtype)
    optimizer = ExtrapSGD([p], lr=0.25, extrapolation=extrapolation, backend=backend)
    helpers.train(optimizer, steps=1)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        p[1:3] = 3.0
        changed = p.clone()
        with optimizer.base_parameters():
            assert torch.equal(p, changed)
            assert torch.equal(optimizer.base_of(p).to(dtype), changed)
        assert torch.equal(p, changed)
        p[4] = 2.0
        assert optimizer.base_of(p)[4] == 2.0
        helpers.train(optimizer, steps=1)


@pytest.mark.parametrize("extrapolation", [None, "extragradient"])
@pytest.mark.parametrize("reset", [False, True], ids=["running", "loaded"])
@pytest.mark.parametrize("dtype", REAL_DTYPES, ids=helpers.describe)
def test_an_extrapolated_point_is_no_change(backend, dtype, reset, extrapolation):
    """Extrapolation is switched off while the parameter is away from its base iterate."""
    p = one(backend, 0.7, dtype)
    optimizer = ExtrapSGD([p], lr=0.25, extrap_lr=0.5, backend=backend)
    step(optimizer)
    x = optimizer.base_of(p).clone()
    assert not torch.equal(p, x.to(dtype))
    if reset:
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    optimizer.param_groups[0]["extrapolation"] = extrapolation
    if extrapolation is not None:
        p.grad = torch.zeros_like(p)
        optimizer.extrapolate()
    step(optimizer, gradient=0.0)
    assert torch.equal(optimizer.base_of(p), x)
    assert torch.equal(p, x.to(dtype))


@pytest.mark.parametrize("make", [ExtrapLARS, ExtrapLAMB])
def test_norms_are_those_of_changed_parameters(backend, make):
    """Of 16 bits: the norm is that of what the parameter was changed to, not of the stored base iterate."""
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        p = one(backend, 0.5, dtype)
        optimizer = make([p], lr=0.25, backend=backend, **PLAIN)
        step(optimizer)
        with torch.no_grad():
            p.copy_(torch.tensor([2.0, 0.0, -1.0, 4.0, 1.5]))
        step(optimizer)
        results.append(optimizer.base_of(p).clone())
    torch.testing.assert_close(*results, rtol=1e-6, atol=0)


def test_embedding_with_a_largest_norm(backend):
    """It renormalizes its weight in the forward pass."""
    norms = []
    for make in (
        lambda p: torch.optim.SGD(p, lr=0.5, foreach=False),
        lambda p: ExtrapSGD(p, lr=0.5, backend=backend, **PLAIN),
    ):
        torch.manual_seed(0)
        embedding = torch.nn.Embedding(6, 4, max_norm=1.0).to(helpers.DEVICES[backend])
        optimizer = make(embedding.parameters())
        for t in range(10):
            optimizer.zero_grad()
            (embedding(torch.tensor([0, 1, 2, t % 6]).to(embedding.weight.device)) * 3).sum().backward()
            optimizer.step()
        norms.append(embedding.weight.norm(dim=1).max().item())
    assert norms[1] == pytest.approx(norms[0], rel=1e-6)


@pytest.mark.parametrize("options", [PLAIN, {}], ids=["plain", "extrapolating"])
def test_a_new_parameter_with_the_state_of_an_old_one_starts_from_what_it_holds(backend, options):
    """As Gaussian Splatting resets opacities."""
    p = one(backend)
    optimizer = ExtrapAdam([p], lr=0.01, backend=backend, **options)
    for _ in range(2):
        step(optimizer)
    state = optimizer.state.pop(p)
    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
    q = torch.nn.Parameter(torch.full_like(p, 0.01))
    optimizer.param_groups[0]["params"][0] = q
    optimizer.state[q] = state
    step(optimizer)
    expected = torch.nn.Parameter(torch.full_like(p, 0.01))
    theirs = torch.optim.Adam([expected], lr=0.01, foreach=False)
    expected.grad = torch.ones_like(expected)
    theirs.step()
    theirs.state[expected]["step"].fill_(2)
    fresh = torch.nn.Parameter(torch.full_like(p, 0.01))
    theirs = torch.optim.Adam([fresh], lr=0.01, foreach=False)
    theirs.state[fresh] = {"step": torch.tensor(2.0), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
    fresh.grad = torch.ones_like(fresh)
    theirs.step()
    torch.testing.assert_close(optimizer.base_of(q), fresh.detach(), rtol=1e-5, atol=1e-8)


def test_a_pruned_parameter_goes_on_with_its_pruned_state(backend):
    """As Gaussian Splatting removes points: whoever writes such code indexes the moments and knows of no base."""
    p = torch.nn.Parameter(torch.linspace(0, 1, 6, device=helpers.DEVICES[backend]))
    optimizer = ExtrapAdam([p], lr=0.01, backend=backend)
    step(optimizer)
    keep = torch.tensor([0, 2, 5], device=p.device)
    state = optimizer.state.pop(p)
    for name in ("exp_avg", "exp_avg_sq"):
        state[name] = state[name][keep]
    q = torch.nn.Parameter(p.detach()[keep])
    optimizer.param_groups[0]["params"][0] = q
    optimizer.state[q] = state
    before = q.detach().clone()
    step(optimizer)
    assert optimizer.state[q]["step"] == 2 and optimizer.base_of(q).shape == q.shape
    assert (optimizer.base_of(q) < before).all()


def test_moved_state_of_copies_stays_theirs(backend):
    """A deep copy has the base iterates of the original."""
    optimizer = ExtrapSGD([one(backend)], lr=0.1, backend=backend)
    step(optimizer)
    twin = copy.deepcopy(optimizer)
    for each in (optimizer, twin):
        step(each)
    helpers.assert_same_bits(helpers.snapshot(twin), helpers.snapshot(optimizer))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64], ids=helpers.describe)
@pytest.mark.parametrize("how", ["eval", "base_parameters"])
def test_changes_in_eval_mode_are_changes_of_the_base_iterate(backend, dtype, how):
    p = one(backend, 0.7, dtype)
    optimizer = ExtrapSGD([p], lr=0.25, backend=backend)
    step(optimizer)
    y = p.detach().clone()
    if how == "eval":
        optimizer.eval()
        with torch.no_grad():
            p[1:3] = 3.0
        optimizer.train()
    else:
        with optimizer.base_parameters(), torch.no_grad():
            p[1:3] = 3.0
    assert (optimizer.base_of(p)[1:3] == 3.0).all() and (p[1:3] == 3.0).all()
    assert torch.equal(p[3:], y[3:]) and torch.equal(p[0], y[0])
    step(optimizer, gradient=0.0)
    assert (optimizer.base_of(p)[1:3] == 3.0).all()


@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_the_extrapolated_point_are_warned_of_once(backend, change):
    if change is clamp_data and helpers.DEVICES[backend] != "cpu":
        pytest.skip("values on a device are not read")
    p, q = one(backend, 0.7), one(backend, 0.2)
    optimizer = ExtrapSGD([("encoder.weight", p), ("head", q)], lr=0.25, backend=backend)
    step(optimizer)
    with pytest.warns(UserWarning, match=r"parameter 0 of group 0 \('encoder.weight', shape \(5,\)\).*base_parameters"):
        for _ in range(20):  # values are looked at now and then
            with torch.no_grad():
                change(p)
            step(optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        change(p.detach())
        step(optimizer)


@pytest.mark.parametrize("options", [{}, PLAIN, {"extrapolation": "extragradient"}, {"noise": "uniform"}], ids=str)
def test_nothing_is_warned_of_where_nobody_writes(backend, options):
    """Modes, saving and loading are this package's own changes; gradients of any kind are none."""
    optimizer = ExtrapSGD([one(backend, 0.7), one(backend, 0.1)], lr=0.25, backend=backend, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for t in range(6):
            helpers.train(optimizer, steps=1, seed=t)
            if t == 2:
                optimizer.eval()
                optimizer.train()
            if t == 3:
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            if t == 4 and options.get("extrapolation") != "extragradient":
                optimizer.zero_grad()
                optimizer.step()


def test_nothing_is_warned_of_where_a_neighbour_is_written(backend):
    """Parameters that are parts of one memory share autograd's version counter."""
    memory = torch.ones(2, 40, device=helpers.DEVICES[backend])
    params = [torch.nn.Parameter(part) for part in memory]
    optimizers = [ExtrapSGD([p], lr=0.25, backend=backend) for p in params]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(40):
            for optimizer in optimizers:
                step(optimizer)
    if helpers.DEVICES[backend] == "cpu":
        with pytest.warns(UserWarning, match="was changed between steps"), torch.no_grad():
            for _ in range(20):
                step(optimizers[0])
                params[0].fill_(3.0)


def test_nothing_is_warned_of_where_training_starts_again(backend):
    """`state.clear()` is what the docs tell to do after weights were loaded in train mode."""
    p = one(backend)
    optimizer = ExtrapSGD([p], lr=0.25, backend=backend)
    step(optimizer)
    with torch.no_grad():
        p.fill_(3.0)
    optimizer.state.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(optimizer)
    assert optimizer.base_of(p).tolist() == [2.75] * 5


def test_casts_of_autocast_are_those_of_the_mode(backend):
    if helpers.DEVICES[backend] != "cpu":
        pytest.skip("autocast of the CPU")
    torch.manual_seed(0)
    model, x = torch.nn.Linear(4, 1), torch.randn(8, 4)
    optimizer = ExtrapSGD(model.parameters(), lr=2.0, backend=backend)
    model(x).square().mean().backward()
    optimizer.step()
    with torch.autocast("cpu", torch.bfloat16):
        model(x)
        with optimizer.base_parameters():
            inside = model(x)
        again = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(x), again)
        with optimizer.base_parameters():
            assert torch.equal(model(x), inside)


def test_entries_of_others_in_the_state_are_left_alone(backend):
    p = one(backend)
    optimizer = ExtrapSGD([p], lr=0.1, backend=backend)
    optimizer.state["wrapper_steps"] = 3
    step(optimizer)
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.eval()
    optimizer.train()
    step(optimizer)
    assert optimizer.state["wrapper_steps"] == 3
