"""No base iterate is stored where the parameter holds it; options that change that in mid-run lose no bit."""

import copy

import helpers
import pytest
import torch

ALWAYS_EXACT = (torch.float32, torch.float64, torch.complex64, torch.complex128)
PLAIN = {"extrapolation": None, "noise": None}
NAMES = ("matrix", "columns", "empty", "three", "channels_last")


def make(rule, dtype, backend, **options):
    optimizer_type = helpers.RULES[rule].optimizer
    own = {"momentum": 0.9} if rule in ("sgd", "lars") else {}
    optimizer = optimizer_type(helpers.zoo(backend, dtype, NAMES), lr=0.1, backend=backend, **own, **options)
    return optimizer, helpers.parameters_of(optimizer)


def step(optimizer, seed):
    helpers.set_gradients(helpers.parameters_of(optimizer), seed)
    optimizer.step()


@pytest.mark.parametrize("rule", helpers.RULES)
@pytest.mark.parametrize("dtype", helpers.DTYPES, ids=helpers.describe)
def test_which_parameters_have_a_base(backend, rule, dtype):
    for options, needed in ((PLAIN, dtype not in ALWAYS_EXACT), ({}, True), ({**PLAIN, "noise": "uniform"}, True)):
        optimizer, params = make(rule, dtype, backend, **options)
        step(optimizer, seed=1)
        assert all(("base" in optimizer.state[p]) == needed for p in params)
        assert all((optimizer.base_of(p) is p) != needed for p in params)


@pytest.mark.parametrize("rule", helpers.RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64], ids=helpers.describe)
def test_a_step_without_a_base_is_one_with_it(backend, rule, dtype):
    """The base of an extrapolation with an inner learning rate of 0 is what the parameter holds."""
    plain, params = make(rule, dtype, backend, **PLAIN)
    stored, others = make(rule, dtype, backend, extrap_lr=0.0)
    for t in range(3):
        step(plain, seed=t)
        step(stored, seed=t)
    helpers.assert_same_bits(params, others)
    helpers.assert_same_bits(params, [stored.base_of(p) for p in others])


def switched(optimizer, **options):
    optimizer.param_groups[0].update(options)


@pytest.mark.parametrize("rule", helpers.RULES)
@pytest.mark.parametrize("perturbation", [{"extrapolation": "past_gradient"}, {"noise": "uniform"}], ids=str)
def test_a_base_is_created_of_the_parameter(backend, rule, perturbation):
    """Switched on in mid-run, it goes on from where the plain optimizer is."""
    optimizer, params = make(rule, torch.float32, backend, **PLAIN)
    step(optimizer, seed=0)
    plain = copy.deepcopy(optimizer)
    switched(optimizer, **perturbation)
    step(optimizer, seed=1)
    step(plain, seed=1)
    helpers.assert_same_bits([optimizer.base_of(p) for p in params], helpers.parameters_of(plain))
    assert any((p != optimizer.base_of(p)).any() for p in params)


@pytest.mark.parametrize("rule", helpers.RULES)
def test_a_base_is_put_into_the_parameter_and_dropped(backend, rule):
    """Switched off in mid-run, the next step corrects the base iterate with the gradient at the extrapolated point."""
    optimizer, params = make(rule, torch.float32, backend)
    step(optimizer, seed=0)
    still = copy.deepcopy(optimizer)
    switched(optimizer, **PLAIN)
    step(optimizer, seed=1)
    step(still, seed=1)
    assert all("base" not in optimizer.state[p] for p in params)
    expected = [still.base_of(p) for p in helpers.parameters_of(still)]
    helpers.assert_same_bits(params, expected)


def test_a_base_without_a_gradient_is_dropped_all_the_same(backend):
    """Or a later step would take the extrapolated point for the base iterate."""
    optimizer, params = make("sgd", torch.float32, backend)
    step(optimizer, seed=0)
    base = optimizer.base_of(params[0]).clone()
    switched(optimizer, **PLAIN)
    helpers.set_gradients(params, seed=1)
    params[0].grad = None
    optimizer.step()
    assert torch.equal(params[0], base)
    assert "base" not in optimizer.state[params[0]]


def test_modes_without_a_base(backend):
    optimizer, params = make("adam", torch.float32, backend, **PLAIN)
    step(optimizer, seed=0)
    before = [p.detach().clone() for p in params]
    optimizer.eval()
    helpers.assert_same_bits([p.detach() for p in params], before)
    assert all("extrapolated" not in optimizer.state[p] for p in params)
    optimizer.train()
    helpers.assert_same_bits([p.detach() for p in params], before)


@pytest.mark.parametrize("evaluating", [False, True])
def test_state_dicts_with_and_without_a_base(backend, evaluating):
    """One that was saved with a base loads where none is stored, and the other way round."""
    for saved_options, options in ((PLAIN, PLAIN), ({}, {}), (PLAIN, {}), ({}, PLAIN)):
        optimizer, params = make("adam", torch.float32, backend, **saved_options)
        step(optimizer, seed=0)
        if evaluating:
            optimizer.eval()
        resumed, others = make("adam", torch.float32, backend, **options)
        with torch.no_grad():
            for p, q in zip(params, others):
                q.copy_(p)
        resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for each in (optimizer, resumed):
            each.train()
            step(each, seed=1)
        helpers.assert_same_bits(helpers.snapshot(resumed), helpers.snapshot(optimizer))
