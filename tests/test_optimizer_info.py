"""The generic properties of PyTorch's test/test_optim.py, for our optimizers described by its OptimizerInfo."""

import copy
import io
import warnings

import helpers
import pytest
import torch
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from extrap_kernels import ExtrapAdam, ExtrapAdamW, ExtrapLAMB, ExtrapLARS, ExtrapSGD, options

try:
    from torch.testing._internal.common_optimizers import (
        OptimizerErrorEnum,
        OptimizerInfo,
        OptimizerInput,
        optim_error_inputs_func_adam,
        optim_error_inputs_func_sgd,
        optim_inputs_func_adam,
        optim_inputs_func_adamw,
        optim_inputs_func_sgd,
    )
except ImportError as error:
    pytest.skip(f"torch.testing._internal.common_optimizers: {error}", allow_module_level=True)

# What a state dict of an earlier version may lack.
LATER_FLAGS = ("foreach", "fused", "differentiable", "maximize", "capturable", "decoupled_weight_decay", "train_mode")


def info(optimizer, inputs, errors):
    def supported(device, dtype=None):
        tensor_lr = OptimizerInput(params=None, kwargs={"lr": torch.tensor(0.01)}, desc="Tensor lr")
        return [each for each in [*inputs(device, dtype), tensor_lr] if not each.kwargs.get("amsgrad")]

    return OptimizerInfo(
        optimizer,
        optim_inputs_func=supported,
        optim_error_inputs_func=errors,
        scheduler_inputs=(
            [],
            [lambda o: lr_scheduler.StepLR(o, gamma=0.9, step_size=10)],
            [lambda o: lr_scheduler.ExponentialLR(o, gamma=0.99), lambda o: lr_scheduler.ReduceLROnPlateau(o)],
        ),
        not_og_supported_flags=(*LATER_FLAGS, *options.DEFAULTS),
    )


INFOS = [
    info(ExtrapSGD, optim_inputs_func_sgd, optim_error_inputs_func_sgd),
    info(ExtrapAdam, optim_inputs_func_adam, optim_error_inputs_func_adam),
    info(ExtrapAdamW, optim_inputs_func_adamw, optim_error_inputs_func_adam),
    info(ExtrapLARS, optim_inputs_func_sgd, optim_error_inputs_func_sgd),
    info(ExtrapLAMB, optim_inputs_func_adam, optim_error_inputs_func_adam),
]
CASES = [
    pytest.param(each, case.desc, id=f"{each.name}-{case.desc}")
    for each in INFOS
    for case in each.optim_inputs_func("cpu")
]
every_case = pytest.mark.parametrize("info, desc", CASES)
every_optimizer = pytest.mark.parametrize("info", INFOS, ids=lambda each: each.name)


def keywords(info, desc, backend):
    """Made anew for each test, since a test may change a tensor lr."""
    case = next(case for case in info.optim_inputs_func("cpu") if case.desc == desc)
    return {**case.kwargs, "backend": backend}


def linear_model(backend, contiguous=True):
    torch.manual_seed(0)
    device = helpers.DEVICES[backend]
    shapes = [(10, 5), (10,)] if contiguous else [(10, 5, 2), (10, 2)]
    tensors = [torch.randn(shape, device=device) for shape in shapes]
    weight, bias = (torch.nn.Parameter(t if contiguous else t[..., 0]) for t in tensors)
    assert weight.is_contiguous() == contiguous
    inputs = torch.randn(5, device=device)

    def loss():
        return (weight.mv(inputs) + bias).pow(2).sum()

    return weight, bias, loss


def assert_right_direction(optimizer, loss, schedulers=()):
    """Twenty steps lower the loss at the base iterate, or raise it with maximize."""
    with optimizer.base_parameters():
        before = loss().item()
    for _ in range(20):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step(*[value.detach()] * isinstance(scheduler, lr_scheduler.ReduceLROnPlateau))
    optimizer.eval()
    assert (loss().item() > before) if optimizer.param_groups[0]["maximize"] else (loss().item() < before)


def trained(info, desc, backend, params=None, steps=3, **more):
    optimizer = info.optim_cls(params or helpers.zoo(backend), **{**keywords(info, desc, backend), **more})
    helpers.train(optimizer, steps)
    return optimizer


def copies(optimizer):
    return [torch.nn.Parameter(p.detach().clone()) for p in helpers.parameters_of(optimizer)]


def assert_go_on_alike(first, second):
    for optimizer in (first, second):
        helpers.train(optimizer, steps=2, seed=50)
    helpers.assert_same_bits(helpers.snapshot(second), helpers.snapshot(first))


@every_case
@pytest.mark.parametrize("schedulers, contiguous", [(0, True), (1, False), (2, True)], ids=str)
def test_goes_in_the_right_direction(backend, info, desc, contiguous, schedulers):
    weight, bias, loss = linear_model(backend, contiguous)
    optimizer = info.optim_cls([weight, bias], **keywords(info, desc, backend))
    assert_right_direction(optimizer, loss, [make(optimizer) for make in info.scheduler_inputs[schedulers]])


@every_case
@pytest.mark.parametrize("schedulers", range(3))
@pytest.mark.parametrize("option", [{"lr": 0.002}, {"weight_decay": 0.01}], ids=lambda option: next(iter(option)))
def test_param_groups(backend, info, desc, option, schedulers):
    weight, bias, loss = linear_model(backend)
    optimizer = info.optim_cls([{"params": [weight]}, {"params": [bias], **option}], **keywords(info, desc, backend))
    assert_right_direction(optimizer, loss, [make(optimizer) for make in info.scheduler_inputs[schedulers]])


@every_case
def test_noop_without_gradients(backend, info, desc):
    params = helpers.zoo(backend)
    before = [p.detach().clone() for p in params]
    info.optim_cls(params, **keywords(info, desc, backend)).step()
    helpers.assert_same_bits([p.detach() for p in params], before)


@every_case
def test_noop_for_zero_gradients(backend, info, desc):
    params = helpers.zoo(backend)
    before = [p.detach().clone() for p in params]
    optimizer = info.optim_cls(params, **{**keywords(info, desc, backend), "weight_decay": 0})
    for _ in range(2):
        for p in params:
            p.grad = torch.zeros_like(p)
        optimizer.step()
    helpers.assert_same_bits([p.detach() for p in params], before)
    assert all(optimizer.state[p] for p in params)


@every_optimizer
def test_empty_groups_and_lists(backend, info):
    with pytest.raises(ValueError, match="optimizer got an empty parameter list"):
        info.optim_cls([], backend=backend)
    info.optim_cls([{"params": []}], backend=backend).step()


BAD_GROUPS = {
    "list": lambda known, new: [new],
    "set": lambda known, new: {"params": {new}},
    "number": lambda known, new: {"params": [1.0]},
    "not a leaf": lambda known, new: {"params": [new * 2]},
    "of another group": lambda known, new: {"params": [known]},
    "twice": lambda known, new: {"params": [new, new]},
    "unnamed beside named": lambda known, new: {"params": [("new", new)]},
}


@every_optimizer
@pytest.mark.parametrize("bad", BAD_GROUPS.values(), ids=BAD_GROUPS)
def test_bad_groups_are_refused_as_by_torch(info, bad):
    """In the same words; a warning counts as an error here."""
    known, new = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    said = []
    for optimizer in (torch.optim.SGD([known]), info.optim_cls([known])):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                optimizer.add_param_group(bad(known, new))
            except (TypeError, ValueError, UserWarning) as error:
                said.append((type(error), str(error)))
    assert len(said) == 2 and said[0] == said[1]
    assert len(optimizer.param_groups) == 1


def save_and_load(backend, info, desc, named):
    def names(params, on):
        return [(f"param{i}", p) for i, p in enumerate(params)] if on else params

    optimizer = trained(info, desc, backend, params=names(helpers.zoo(backend), named[0]))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed = info.optim_cls(names(copies(optimizer), named[1]), **keywords(info, desc, backend))
    resumed.load_state_dict(torch.load(file, weights_only=True))
    saved = [each.state_dict() for each in (resumed, optimizer)]
    for group in [group for each in saved for group in each["param_groups"]]:
        for name in ("param_names", "differentiable"):  # torch keeps the one, and adds the other to what is loaded
            group.pop(name, None)
    helpers.assert_same_bits(*saved)
    assert_go_on_alike(optimizer, resumed)


@every_case
def test_step_count_may_be_a_number(backend, info, desc):
    """Some tools make one of a 0-dim tensor, and torch's optimizers take it."""
    optimizer = trained(info, desc, backend)
    state_dict = copy.deepcopy(optimizer.state_dict())
    for state in state_dict["state"].values():
        state["step"] = state["step"].item()
    resumed = info.optim_cls(copies(optimizer), **keywords(info, desc, backend))
    resumed.load_state_dict(state_dict)
    assert_go_on_alike(optimizer, resumed)


@every_case
def test_save_and_load(backend, info, desc):
    save_and_load(backend, info, desc, named=(False, False))


@every_optimizer
@pytest.mark.parametrize("named", [(False, True), (True, False), (True, True)], ids=str)
def test_save_and_load_by_name(backend, info, named):
    save_and_load(backend, info, "default", named)


@every_case
def test_older_state_dict(backend, info, desc):
    optimizer = trained(info, desc, backend)
    state_dict = optimizer.state_dict()
    for flag in info.not_og_supported_flags:
        for group in state_dict["param_groups"]:
            group.pop(flag, None)
    resumed = info.optim_cls(copies(optimizer), **keywords(info, desc, backend))
    resumed.load_state_dict(state_dict)
    assert_go_on_alike(optimizer, resumed)


def test_adamw_stays_adamw_with_what_adam_saved(backend):
    """And takes its learning rate and moments."""
    saved = ExtrapAdam(helpers.zoo(backend), lr=0.5, weight_decay=0.1, backend=backend)
    helpers.train(saved, steps=2)
    resumed = ExtrapAdamW(copies(saved), backend=backend)
    resumed.load_state_dict(saved.state_dict())
    saved.param_groups[0]["decoupled_weight_decay"] = True
    assert resumed.param_groups[0]["lr"] == 0.5
    assert_go_on_alike(saved, resumed)


@every_case
def test_deepcopy(backend, info, desc):
    optimizer = trained(info, desc, backend, params=helpers.zoo(backend, names=["matrix", "scalar"]))
    twin = copy.deepcopy(optimizer)
    assert {name for name in vars(twin) if name[0] != "_"} == {name for name in vars(optimizer) if name[0] != "_"}
    assert_go_on_alike(optimizer, twin)


@every_optimizer
def test_step_hooks(backend, info):
    """Of the optimizer and of all, before and after; a pre-hook may change the arguments."""
    (param,) = helpers.zoo(backend, names=["matrix"])
    optimizer = info.optim_cls([param], backend=backend)
    calls = []

    def hook(name):
        return lambda each, args, kwargs: calls.append((name, each is optimizer, param.grad is not None))

    def closure():
        helpers.set_gradients([param], seed=0)
        return 1.5

    handles = [
        register_optimizer_step_pre_hook(hook("all before")),
        register_optimizer_step_post_hook(hook("all after")),
        optimizer.register_step_pre_hook(hook("before")),
        optimizer.register_step_pre_hook(lambda each, args, kwargs: ((each, closure), kwargs)),
        optimizer.register_step_post_hook(hook("after")),
    ]
    try:
        assert optimizer.step() == 1.5
    finally:
        for handle in handles:
            handle.remove()
    before = [("all before", True, False), ("before", True, False)]
    after = [("after", True, True), ("all after", True, True)]
    assert sorted(calls[:2]) == before and sorted(calls[2:]) == sorted(after)
    optimizer.step()
    assert len(calls) == 4


@every_optimizer
def test_state_dict_hooks(backend, info):
    optimizer = info.optim_cls(helpers.zoo(backend), lr=0.25, backend=backend)
    calls = []
    optimizer.register_state_dict_pre_hook(lambda each: calls.append("before saving"))
    optimizer.register_state_dict_post_hook(lambda each, saved: {**saved, "extra": 7})
    state_dict = optimizer.state_dict()
    assert state_dict["extra"] == 7

    def other_lr(each, loaded):
        calls.append("before loading")
        return {**loaded, "param_groups": [{**group, "lr": 0.5} for group in loaded["param_groups"]]}

    optimizer.register_load_state_dict_pre_hook(other_lr)
    optimizer.register_load_state_dict_post_hook(lambda each: calls.append(each.param_groups[0]["lr"]))
    optimizer.load_state_dict(state_dict)
    assert calls == ["before saving", "before loading", 0.5]


@every_case
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=helpers.describe)
def test_complex_is_a_pair_of_real_numbers(backend, info, desc, dtype):
    whole = helpers.zoo(backend, dtype, ["matrix", "scalar", "channels_last"])
    pairs = [torch.nn.Parameter(torch.view_as_real(p.detach()).clone()) for p in whole]
    optimizers = [info.optim_cls(params, **keywords(info, desc, backend)) for params in (whole, pairs)]
    for t in range(4):
        helpers.set_gradients(whole, seed=t)
        for p, q in zip(whole, pairs):
            q.grad = torch.view_as_real(p.grad).clone()
        for optimizer in optimizers:
            optimizer.step()
        torch.testing.assert_close([torch.view_as_real(p.detach()) for p in whole], [q.detach() for q in pairs])


@every_case
def test_mixed_dtypes_in_a_group(backend, info, desc):
    """Each as if it were alone."""
    dtypes = (torch.float32, torch.bfloat16, torch.float64, torch.float16, torch.complex64)
    mixed = [p for dtype in dtypes for p in helpers.zoo(backend, dtype, ["matrix", "vector"])]
    alone = [torch.nn.Parameter(p.detach().clone()) for p in mixed]
    optimizers = [info.optim_cls([p], **keywords(info, desc, backend)) for p in alone]
    optimizers.append(info.optim_cls(mixed, **keywords(info, desc, backend)))
    for t in range(3):
        helpers.set_gradients(mixed, seed=t)
        for p, q in zip(mixed, alone):
            q.grad = p.grad
        for optimizer in optimizers:
            optimizer.step()
    helpers.assert_same_bits([p.detach() for p in mixed], [p.detach() for p in alone])


@every_case
def test_tensor_lr_is_read_and_not_changed(backend, info, desc):
    lr = torch.tensor(0.125)
    by_tensor = trained(info, desc, backend, lr=lr)
    by_number = trained(info, desc, backend, lr=0.125)
    helpers.assert_same_bits(helpers.snapshot(by_tensor), helpers.snapshot(by_number))
    assert by_tensor.param_groups[0]["lr"] is lr and lr == 0.125
    lr.fill_(0.5)
    by_number.param_groups[0]["lr"] = 0.5
    assert_go_on_alike(by_tensor, by_number)


@every_optimizer
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)], ids=str)
def test_tensor_lr_of_any_dims(backend, info, shape):
    """Also under a scheduler, which keeps the shape."""
    rates = (torch.full(shape, 0.125), 0.125)
    optimizers = [info.optim_cls(helpers.zoo(backend), lr=lr, backend=backend) for lr in rates]
    for optimizer, scheduler in [(each, lr_scheduler.ExponentialLR(each, 0.5)) for each in optimizers]:
        helpers.train(optimizer, steps=2)
        scheduler.step()
    assert optimizers[0].param_groups[0]["lr"].shape == shape
    assert_go_on_alike(*optimizers)


@every_optimizer
def test_can_be_printed(backend, info):
    text = repr(trained(info, "default", backend))
    assert text.startswith(f"{info.optim_cls.__name__} (") and "extrapolation: past_gradient" in text


@every_optimizer
def test_default_dtype_does_not_matter(backend, info):
    expected = helpers.snapshot(trained(info, "default", backend))
    torch.set_default_dtype(torch.float64)
    try:
        actual = helpers.snapshot(trained(info, "default", backend))
    finally:
        torch.set_default_dtype(torch.float32)
    helpers.assert_same_bits(actual, expected)


@every_optimizer
def test_errors_are_those_of_torch(info):
    """But for limits of torch's implementations that ours does not have."""
    ours = info.optim_cls([torch.zeros(1)]).defaults
    checked = 0
    for case in info.optim_error_inputs_func("cpu", torch.float32):
        given = case.optimizer_error_input
        if case.error_on != OptimizerErrorEnum.CONSTRUCTION_ERROR or given.kwargs.get("foreach"):
            continue
        if not set(given.kwargs) <= set(ours) or given.desc == "betas must be either both floats or both Tensors":
            continue
        expects = pytest.warns if issubclass(case.error_type, Warning) else pytest.raises
        with expects(case.error_type, match=case.error_regex):
            info.optim_cls(given.params or [torch.zeros(1)], **given.kwargs)
        checked += 1
    assert checked >= 5
