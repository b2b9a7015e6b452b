"""train(), eval() and base_parameters(): what the parameters hold, bit for bit, and when."""

import helpers
import pytest
import torch

from extrap_kernels import ExtrapSGD


def make(backend, dtype):
    """After two steps; the last parameter has had no gradient yet."""
    params = helpers.zoo(backend, dtype)
    optimizer = ExtrapSGD(params, lr=0.1, momentum=0.9, noise="gaussian", backend=backend)
    for t in range(2):
        helpers.set_gradients(params[:-1], seed=t)
        optimizer.step()
    return optimizer


@pytest.fixture(params=helpers.DTYPES, ids=helpers.describe)
def optimizer(request, backend):
    return make(backend, request.param)


def held(optimizer):
    return [p.detach().clone() for p in helpers.parameters_of(optimizer)]


def rounded_base(optimizer):
    """The base iterate in the dtype of the parameters: what a plain optimizer would hold."""
    params = helpers.parameters_of(optimizer)
    return [optimizer.base_of(p).to(p.dtype) if p in optimizer.state else p for p in params]


def test_modes_are_exact_however_often(optimizer):
    y = held(optimizer)
    x = rounded_base(optimizer)
    assert any(not torch.equal(a, b) for a, b in zip(x, y))
    for _ in range(3):
        optimizer.eval()
        optimizer.eval()
        helpers.assert_same_bits(held(optimizer), x)
        optimizer.train()
        optimizer.train()
        helpers.assert_same_bits(held(optimizer), y)


def test_mode_of_train_argument(optimizer):
    y = held(optimizer)
    optimizer.train(False)
    helpers.assert_same_bits(held(optimizer), rounded_base(optimizer))
    optimizer.train(True)
    helpers.assert_same_bits(held(optimizer), y)


def test_evaluation_changes_no_later_step(backend):
    evaluated, plain = (make(backend, torch.bfloat16) for _ in range(2))
    for t in range(3):
        evaluated.eval()
        evaluated.train()
        for each in (evaluated, plain):
            helpers.set_gradients(helpers.parameters_of(each), seed=20 + t)
            each.step()
    helpers.assert_same_bits(helpers.snapshot(evaluated), helpers.snapshot(plain))


def test_base_parameters(optimizer):
    y, x = held(optimizer), rounded_base(optimizer)
    with optimizer.base_parameters():
        helpers.assert_same_bits(held(optimizer), x)
        with optimizer.base_parameters():
            helpers.assert_same_bits(held(optimizer), x)
        helpers.assert_same_bits(held(optimizer), x)
    helpers.assert_same_bits(held(optimizer), y)


def test_base_parameters_after_an_exception(optimizer):
    y = held(optimizer)
    with pytest.raises(ZeroDivisionError), optimizer.base_parameters():
        raise ZeroDivisionError
    helpers.assert_same_bits(held(optimizer), y)
    assert optimizer.param_groups[0]["train_mode"]


def test_base_parameters_in_eval_mode_stays_in_it(optimizer):
    optimizer.eval()
    with optimizer.base_parameters():
        pass
    helpers.assert_same_bits(held(optimizer), rounded_base(optimizer))
    with pytest.raises(RuntimeError, match="eval mode"):
        optimizer.step()


@pytest.mark.parametrize("call", ["step", "extrapolate"])
def test_no_step_in_eval_mode(backend, call):
    params = helpers.zoo(backend)
    optimizer = ExtrapSGD(params, lr=0.1, extrapolation="extragradient", backend=backend)
    helpers.train(optimizer, steps=1)
    optimizer.eval()
    before = helpers.snapshot(optimizer)
    with pytest.raises(RuntimeError, match=rf"{call}\(\) in eval mode"):
        getattr(optimizer, call)()
    helpers.assert_same_bits(helpers.snapshot(optimizer), before)
    optimizer.train()
    helpers.train(optimizer, steps=1)


def test_evaluation_between_extrapolate_and_step(backend):
    params, twins = helpers.zoo(backend), helpers.zoo(backend)
    optimizer, plain = (ExtrapSGD(ps, lr=0.1, **helpers.EXTRAGRADIENT, backend=backend) for ps in (params, twins))
    x = held(optimizer)
    for each in (optimizer, plain):
        helpers.set_gradients(helpers.parameters_of(each), seed=0)
        each.extrapolate()
    with optimizer.base_parameters():
        helpers.assert_same_bits(held(optimizer), x)
    helpers.assert_same_bits(held(optimizer), held(plain))
    for each in (optimizer, plain):
        helpers.set_gradients(helpers.parameters_of(each), seed=1)
        each.step()
    helpers.assert_same_bits(held(optimizer), held(plain))


def test_eval_before_the_first_step(backend):
    params = helpers.zoo(backend)
    optimizer = ExtrapSGD(params, lr=0.1, backend=backend)
    start = held(optimizer)
    optimizer.eval()
    helpers.assert_same_bits(held(optimizer), start)
    optimizer.train()
    helpers.assert_same_bits(held(optimizer), start)


def test_parameters_never_move(optimizer):
    def addresses():
        return [(p.data_ptr(), p.stride()) for p in helpers.parameters_of(optimizer)]

    before = addresses()
    helpers.train(optimizer, steps=2)
    with optimizer.base_parameters():
        assert addresses() == before
    optimizer.load_state_dict(optimizer.state_dict())
    helpers.train(optimizer, steps=1)
    assert addresses() == before
