"""extrapolation="extragradient": two gradients a step, by two calls or a closure."""

import helpers
import pytest
import torch

from extrap_kernels import ExtrapSGD

PAST = {"extrapolation": "past_gradient"}


def make(backend, dtype=torch.float32, params=None, **options):
    params = helpers.zoo(backend, dtype) if params is None else params
    return ExtrapSGD(params, **{"lr": 0.1, "momentum": 0.9, **helpers.EXTRAGRADIENT, "backend": backend, **options})


def held(optimizer):
    return [p.detach().clone() for p in helpers.parameters_of(optimizer)]


def feed(optimizer, seed):
    helpers.set_gradients(helpers.parameters_of(optimizer), seed)


@pytest.mark.parametrize("dtype", helpers.DTYPES, ids=helpers.describe)
def test_first_half_moves_the_parameters_alone(backend, dtype):
    optimizer = make(backend, dtype)
    helpers.train(optimizer, steps=2)
    before_params, before_state = helpers.snapshot(optimizer)
    feed(optimizer, seed=9)
    optimizer.extrapolate()
    params, state = helpers.snapshot(optimizer)
    helpers.assert_same_bits(state, before_state)
    assert any(not torch.equal(a, b) for a, b in zip(params, before_params))


@pytest.mark.parametrize("dtype", helpers.DTYPES, ids=helpers.describe)
def test_step_leaves_the_parameters_at_the_base(backend, dtype):
    optimizer = make(backend, dtype)
    helpers.train(optimizer, steps=2)
    bases = [optimizer.base_of(p).to(dtype) for p in helpers.parameters_of(optimizer)]
    helpers.assert_same_bits(held(optimizer), bases)


def test_closure_equals_two_calls(backend):
    by_closure, by_calls = make(backend), make(backend)
    for t in range(3):
        losses = iter((1.0 + t, 2.0 + t))
        seeds = iter((2 * t, 2 * t + 1))

        def closure(losses=losses, seeds=seeds):
            assert torch.is_grad_enabled()
            feed(by_closure, next(seeds))
            return next(losses)

        assert by_closure.step(closure) == 1.0 + t
        assert next(losses, None) is None
        feed(by_calls, 2 * t)
        by_calls.extrapolate()
        feed(by_calls, 2 * t + 1)
        assert by_calls.step() is None
        helpers.assert_same_bits(helpers.snapshot(by_closure), helpers.snapshot(by_calls))


@pytest.mark.parametrize("extrapolation", helpers.DIRECTIONS, ids=str)
def test_other_modes_call_the_closure_once(backend, extrapolation):
    optimizer = make(backend, extrapolation=extrapolation)
    losses = iter((3.0,))

    def closure():
        assert torch.is_grad_enabled()
        feed(optimizer, seed=0)
        return next(losses)

    assert optimizer.step(closure) == 3.0


def test_other_groups_take_one_gradient(backend):
    """extrapolate() leaves groups of other modes alone, and step() takes them all."""
    mixed = make(backend, params=[{"params": helpers.zoo(backend)}, {"params": helpers.zoo(backend), **PAST}])
    alone = ExtrapSGD(helpers.zoo(backend), lr=0.1, momentum=0.9, backend=backend)
    for t in range(3):
        feed(mixed, seed=t + 10)
        before = held(mixed)[len(helpers.LAYOUTS) :]
        mixed.extrapolate()
        helpers.assert_same_bits(held(mixed)[len(helpers.LAYOUTS) :], before)
        feed(alone, seed=t)
        for p, q in zip(mixed.param_groups[1]["params"], helpers.parameters_of(alone)):
            p.grad = q.grad
        mixed.step()
        alone.step()
        helpers.assert_same_bits(held(mixed)[len(helpers.LAYOUTS) :], held(alone))


@pytest.mark.parametrize("noise", ["gaussian", "uniform"])
@pytest.mark.parametrize("of_group", [False, True])
def test_noise_is_refused(noise, of_group):
    options = {"extrapolation": "extragradient", "noise": noise}
    params = [torch.nn.Parameter(torch.ones(2))]
    with pytest.raises(ValueError, match=f"Invalid noise value: '{noise}' with extrapolation='extragradient'"):
        ExtrapSGD([{"params": params, **options}] if of_group else params, **({} if of_group else options))


@pytest.mark.parametrize("by_closure", [False, True])
def test_noise_is_refused_in_mid_run(backend, by_closure):
    optimizer, twin = (make(backend, **PAST, noise="uniform") for _ in range(2))
    for each in (optimizer, twin):
        helpers.train(each, steps=1)
    optimizer.param_groups[0]["extrapolation"] = "extragradient"
    with pytest.raises(ValueError, match="Invalid noise value: 'uniform' with extrapolation='extragradient'"):
        optimizer.step(lambda: None) if by_closure else optimizer.extrapolate()
    helpers.assert_same_bits(helpers.snapshot(optimizer), helpers.snapshot(twin))


def twice(optimizer):
    optimizer.extrapolate()
    optimizer.extrapolate()


@pytest.mark.parametrize(
    "misuse, options, message",
    [
        (twice, {}, r"extrapolate\(\) was called twice"),
        (lambda o: o.step(), {}, r"needs extrapolate\(\) after the first backward"),
        (lambda o: o.extrapolate(), PAST, "needs a param group with extrapolation='extragradient'"),
    ],
    ids=["twice", "missing", "other_mode"],
)
def test_misuse_is_an_error_that_changes_nothing(backend, misuse, options, message):
    optimizer, twin = make(backend, **options), make(backend, **options)
    for each in (optimizer, twin):
        helpers.train(each, steps=1)
        feed(each, seed=5)
    if misuse is twice:
        twin.extrapolate()
    with pytest.raises(RuntimeError, match=message):
        misuse(optimizer)
    helpers.assert_same_bits(helpers.snapshot(optimizer), helpers.snapshot(twin))


def test_each_step_needs_its_own_extrapolation(backend):
    optimizer = make(backend)
    helpers.train(optimizer, steps=1)
    with pytest.raises(RuntimeError, match="needs extrapolate"):
        optimizer.step()


def test_gradient_missing_from_the_second_backward(backend):
    """A layer that only the first pass used: it takes no step, and is at its base iterate after it."""
    optimizer = make(backend)
    helpers.train(optimizer, steps=1)
    before = held(optimizer)
    feed(optimizer, seed=3)
    optimizer.extrapolate()
    feed(optimizer, seed=4)
    params = helpers.parameters_of(optimizer)
    for p in params[::2]:
        p.grad = None
    optimizer.step()
    helpers.assert_same_bits(held(optimizer)[::2], before[::2])


def test_gradient_missing_from_the_first_backward(backend):
    """A layer that only the second pass used steps from where it is, as in a plain step."""
    optimizer, plain = make(backend), make(backend, extrapolation=None)
    feed(optimizer, seed=3)
    for p in helpers.parameters_of(optimizer)[::2]:
        p.grad = None
    optimizer.extrapolate()
    feed(optimizer, seed=4)
    optimizer.step()
    feed(plain, seed=4)
    plain.step()
    helpers.assert_same_bits(held(optimizer), held(plain))


def test_failing_closure_leaves_a_usable_optimizer(backend):
    """After an exception in the second evaluation, an interrupt for example, the next step is taken as usual."""
    optimizer = make(backend)
    evaluated_at = []

    def closure():
        evaluated_at.append(held(optimizer))
        if len(evaluated_at) == 2:
            raise ZeroDivisionError
        feed(optimizer, seed=len(evaluated_at))

    with pytest.raises(ZeroDivisionError):
        optimizer.step(closure)
    optimizer.step(closure)
    assert len(evaluated_at) == 4
    helpers.assert_same_bits(evaluated_at[2], evaluated_at[0])


@pytest.mark.parametrize("dtype", helpers.DTYPES, ids=helpers.describe)
def test_parameters_changed_between_steps_are_the_base(backend, dtype):
    """`x = p`: what a user does to the parameters, clipping the weights for example, is where the next step starts."""
    optimizer = make(backend, dtype, momentum=0.0)
    helpers.train(optimizer, steps=1)
    with torch.no_grad():
        for p in helpers.parameters_of(optimizer):
            p.copy_(torch.where(p.abs() > 0.5, torch.full_like(p, 0.1), p))
    start = held(optimizer)
    for p in helpers.parameters_of(optimizer):
        p.grad = torch.zeros_like(p)
    optimizer.extrapolate()
    helpers.assert_same_bits(held(optimizer), start)
    optimizer.step()
    helpers.assert_same_bits(held(optimizer), start)
    bases = [optimizer.base_of(p).to(dtype) for p in helpers.parameters_of(optimizer)]
    helpers.assert_same_bits(bases, start)
