"""Checks a state dict that is loaded, and restores the state from it."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from extrap_kernels import backends, modes, options
from extrap_kernels.layout import empty_dense, is_plain
from extrap_kernels.shards import local_part
from extrap_kernels.state.blocks import SMALLEST, empty_exponents, exponents_shape, takes_blocks
from extrap_kernels.state.float24 import BASE_LOW, is_split, stored_base
from extrap_kernels.state.layout import StateLayout, exponents_of, step_count
from extrap_kernels.state.recovery import INNER_LR, inner_lr_as, is_recovered
from extrap_kernels.stepping import Stepper

if TYPE_CHECKING:
    from extrap_kernels.optimizer import ExtrapOptimizer


# Of state dicts: 1 also where there is none. A number more where an older package would misread what is saved.
FORMAT_VERSION = 1


class _Saved(NamedTuple):
    """What a state dict has for one parameter."""

    param: Tensor
    key: Any
    entries: Mapping[str, Any]
    options: Mapping[str, Any]  # of its group once the dict is loaded
    layout: StateLayout


def _parameters(optimizer: ExtrapOptimizer, saved: Mapping[str, Any]) -> Iterator[_Saved]:
    for group, saved_group in zip(optimizer.param_groups, saved["param_groups"]):
        final = {**optimizer.defaults, **saved_group}
        for param, key in zip(group["params"], saved_group["params"]):
            entries = saved["state"].get(key)
            if entries and is_plain(param):
                layout = StateLayout.of_param(optimizer.rule.SPEC, final, param)
                yield _Saved(param, key, entries, final, layout)


def with_names(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return a param group as it is saved: dtypes by name, since torch.distributed.checkpoint refuses dtypes."""
    return {k: str(v).removeprefix("torch.") if isinstance(v, torch.dtype) else v for k, v in group.items()}


def with_dtypes(group: Mapping[str, Any]) -> dict[str, Any]:
    """Undo :func:`with_names`."""
    name = group.get("state_dtype")
    dtype = getattr(torch, name, name) if isinstance(name, str) else name
    return {**group, "state_dtype": dtype} if "state_dtype" in group else dict(group)


@torch.no_grad()
def complete(optimizer: ExtrapOptimizer) -> None:
    """Create the state that a parameter lacks because an option was switched on after its last step."""
    for group in optimizer.param_groups:
        for param in group["params"]:
            state = optimizer.state.get(param, {})
            if "step" not in state:
                continue
            StateLayout.of_param(optimizer.rule.SPEC, group, param).create_missing(state, param)
            if not group["train_mode"] and ("base" in state or INNER_LR in state) and "extrapolated" not in state:
                state["extrapolated"] = param.detach().clone(memory_format=torch.preserve_format)


@torch.no_grad()
def to_float32(optimizer: ExtrapOptimizer, state_dict: dict[str, Any]) -> None:
    """Replace in ``state_dict``, which ``optimizer.state_dict()`` returned, what is not in the arithmetic's precision.

    The tensors of the optimizer do not change.
    """
    for group, saved_group in zip(optimizer.param_groups, state_dict["param_groups"]):
        wide = {**group, "state_dtype": torch.float32}
        saved_group["state_dtype"] = with_names(wide)["state_dtype"]
        for param, key in zip(group["params"], saved_group["params"]):
            entries = state_dict["state"].get(key)
            if entries and is_plain(param):
                StateLayout.of_param(optimizer.rule.SPEC, wide, param).convert(entries, param)


def warn_of_trainer(optimizer: ExtrapOptimizer) -> None:
    """Warn if Hugging Face's ``Trainer`` asks for the state dict while parameters hold the extrapolated point.

    It has saved the model just before, as it was, and never tells the optimizer: the function that calls is all that
    can be seen here. The callback of :mod:`extrap_kernels.integrations.transformers` switches to eval mode before.
    """
    frame = inspect.currentframe()
    while frame is not None and not (
        frame.f_code.co_name == "_save_optimizer_and_scheduler"
        and frame.f_globals.get("__name__") == "transformers.trainer"
    ):
        frame = frame.f_back
    if frame is None or not optimizer.param_groups[0]["train_mode"]:
        return
    states = [each for each in optimizer.state.values() if isinstance(each, dict)]
    if any(is_recovered(each) or not optimizer.base_owners.holds_base(each) for each in states):
        warnings.warn(
            f"Trainer saves the model while its parameters hold the extrapolated point of {type(optimizer).__name__}: "
            "the checkpoint resumes, but its model file does not hold the weights to evaluate and to share. Pass "
            "callbacks=[ExtrapolationCallback()] of extrap_kernels.integrations.transformers to Trainer",
            stacklevel=2,
        )


def check_form(state_dict: Any) -> None:
    """Raise ValueError for what is not the state dict of an optimizer."""
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= state_dict.keys():
        found = sorted(map(str, state_dict)) if isinstance(state_dict, Mapping) else type(state_dict).__name__
        raise ValueError(
            f"not the state dict of an optimizer, which has 'state' and 'param_groups': {found}; pass what "
            "optimizer.state_dict() returned"
        )
    version = state_dict.get("format_version", 1)
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise ValueError(
            f"the state dict has format_version {version!r}, and this package reads up to {FORMAT_VERSION}: install "
            "the version of extrap-kernels that saved it, or a later one"
        )


def check_saved(optimizer: ExtrapOptimizer, saved: Mapping[str, Any]) -> None:
    """Raise ValueError if options of a group are invalid, or the state of a parameter is damaged or does not fit."""
    for number, saved_group in enumerate(saved["param_groups"]):
        try:
            optimizer.check_group({**optimizer.defaults, **saved_group})
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"group {number} of the loaded state dict: {error}") from error
    for each in _parameters(optimizer, saved):
        _check_entries(type(optimizer).__name__, each, _needed(each))


def _needed(each: _Saved) -> list[str]:
    needed = ["step", *each.layout.names]
    if each.layout.recovers_base and "base" not in each.entries:  # other versions store it
        needed += [INNER_LR]
    holds_two_points = each.layout.has_base or each.layout.recovers_base
    return needed + ["extrapolated"] if holds_two_points and not each.options["train_mode"] else needed


def _check_entries(optimizer: str, each: _Saved, needed: list[str]) -> None:
    if not isinstance(each.entries, Mapping):
        raise ValueError(f"loaded state dict has a {type(each.entries).__name__} as state of parameter {each.key}")
    for name in needed:
        if name not in each.entries:
            raise ValueError(
                f"loaded state dict lacks {name!r} for parameter {each.key}; it has {sorted(each.entries)}. "
                f"It must come from {optimizer}.state_dict() with the same options"
            )
    _check_step(each)
    _check_inner_lr(each)
    _check_low_bytes(each)
    for name in {*needed, *each.layout.names} - {"step", INNER_LR}:
        if name in each.entries:
            _check_tensor(each, name, each.entries[name])


def _check_step(each: _Saved) -> None:
    try:
        step = float(each.entries["step"])
    except (TypeError, ValueError, RuntimeError):
        step = -1.0
    if not (step >= 0 and step == step // 1):
        raise ValueError(
            f"loaded state dict has the step count {each.entries['step']!r} for parameter {each.key}; it must be a "
            "whole number that is not negative"
        )


def _check_inner_lr(each: _Saved) -> None:
    try:
        inner_lr = float(each.entries.get(INNER_LR, 0.0))
    except (TypeError, ValueError, RuntimeError):
        inner_lr = math.nan
    if not math.isfinite(inner_lr):
        raise ValueError(
            f"loaded state dict has the {INNER_LR} {each.entries[INNER_LR]!r} for parameter {each.key}; it must be a "
            "finite number, by which the base iterate is recovered"
        )


def _check_tensor(each: _Saved, name: str, value: Any) -> None:
    param = each.param
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        raise ValueError(f"loaded state dict has no dense tensor as {name!r} for parameter {each.key}")
    if value.shape != param.shape:
        raise ValueError(
            f"loaded state dict has {name!r} of shape {tuple(value.shape)} for parameter {each.key} of shape "
            f"{tuple(param.shape)}; build the model and the optimizer as they were when it was saved"
        )
    if name in each.layout.buffers and value.dtype == torch.uint8 and takes_blocks(param):
        _check_exponents(each, exponents_of(name))
    elif value.is_complex() != param.is_complex() or not (value.is_floating_point() or value.is_complex()):
        raise ValueError(
            f"loaded state dict has {name!r} of {value.dtype} for parameter {each.key} of {param.dtype}; build the "
            "model and the optimizer as they were when it was saved"
        )


def _check_exponents(each: _Saved, name: str) -> None:
    value, shape = each.entries.get(name), exponents_shape(each.param.shape)
    if not isinstance(value, Tensor) or (value.dtype, value.shape) != (torch.uint8, shape) or _least(value) < SMALLEST:
        raise ValueError(
            f"loaded state dict has no sound {name!r} for parameter {each.key}: it must be a uint8 tensor of shape "
            f"{shape}, of exponents from {SMALLEST} on; save the state dict of the optimizer as a whole"
        )


def _check_low_bytes(each: _Saved) -> None:
    base, low = each.entries.get("base"), each.entries.get(BASE_LOW)
    if not isinstance(base, Tensor) or not is_split(each.entries):
        return
    if not isinstance(low, Tensor) or (low.dtype, low.shape) != (torch.uint8, base.shape):
        raise ValueError(
            f"loaded state dict has no sound {BASE_LOW!r} for parameter {each.key}: beside a bfloat16 'base' it must "
            f"be a uint8 tensor of shape {tuple(base.shape)}, its low bytes; save the state dict of the optimizer as a "
            "whole, or 'base' in float32"
        )


def _least(exponents: Tensor) -> int:
    local = local_part(exponents)
    return int(local.min()) if local.numel() > 0 else SMALLEST


def restore(optimizer: ExtrapOptimizer, saved: Mapping[str, Any]) -> None:
    """Put saved values into the state: torch has cast those of floating point to the dtype of the parameter."""
    for each in _parameters(optimizer, saved):
        state = optimizer.state[each.param]
        for name, value in each.entries.items():
            if name == "step":
                state[name] = step_count(value, None)
            elif name == INNER_LR:
                state[name] = inner_lr_as(value, each.layout.base_dtype, None)
            elif name == "extrapolated":
                state[name] = torch.empty_like(each.param, requires_grad=False).copy_(value)
            elif name == BASE_LOW:
                continue
            elif name == "base" and is_split(each.entries):
                halves = {name: empty_dense(each.param, value.dtype).copy_(value)}
                halves[BASE_LOW] = empty_dense(each.param, torch.uint8).copy_(each.entries[BASE_LOW])
                state.update(halves)
                if not each.layout.fits(name, halves, each.param):
                    each.layout.put(name, state, each.param, stored_base(halves))
            elif name in each.layout.buffers and value.dtype == torch.uint8:
                codes = {name: empty_dense(each.param, torch.uint8).copy_(value)}
                codes[exponents_of(name)] = empty_exponents(each.param).copy_(each.entries[exponents_of(name)])
                state.update(codes)
                if not each.layout.fits(name, codes, each.param):
                    each.layout.put(name, state, each.param, each.layout.numbers(name, codes, each.param))
            elif isinstance(value, Tensor) and value.shape == each.param.shape:
                each.layout.put(name, state, each.param, value)


@torch.no_grad()
def only_creates_state(optimizer: ExtrapOptimizer) -> bool:
    """Create the state and return True if this is a step with zero gradients at learning rate 0; else return False.

    ``torch.distributed.checkpoint.state_dict`` takes such a step, in any mode, to have tensors that it can load
    into. With noise or an ``extrap_lr`` of its own it would move the parameters, which may be loaded already.
    """
    groups = enumerate(optimizer.param_groups)
    if any([float(options.read(group, i, optimizer.defaults)["lr"]) != 0.0 for i, group in groups]):
        return False
    stepper = Stepper()  # a temporary one, which releases what it has bound
    executors = stepper.bind(optimizer, range(len(optimizer.param_groups)))
    if float(backends.gradient_square_sum(executors, None)) != 0.0:
        return False
    if not optimizer.param_groups[0]["train_mode"]:
        modes.put_base(optimizer.state, optimizer.rule.SPEC.first_buffer)
    return True
