"""Checks a state dict that is loaded, and restores the state from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from extrap_kernels import backends, modes
from extrap_kernels.state.layout import StateLayout
from extrap_kernels.stepping import Stepper

if TYPE_CHECKING:
    from extrap_kernels.optimizer import ExtrapOptimizer


def _final_options(optimizer: ExtrapOptimizer, saved_group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a param group once ``saved_group`` is loaded."""
    return {**optimizer.defaults, **saved_group}


def check_saved(optimizer: ExtrapOptimizer, saved: Mapping[str, Any]) -> None:
    """Raise ValueError if saved state lacks a tensor that the options need, or does not fit its parameter."""
    for group, saved_group in zip(optimizer.param_groups, saved["param_groups"]):
        final = _final_options(optimizer, saved_group)
        for param, key in zip(group["params"], saved_group["params"]):
            if saved["state"].get(key):
                layout = StateLayout.of(optimizer.rule.SPEC, final, param.dtype)
                needed = ["step", *layout.names]
                if layout.has_base and not final["train_mode"]:
                    needed.append("extrapolated")
                _check_entries(type(optimizer).__name__, param, key, saved["state"][key], needed)


def _check_entries(optimizer: str, param: Tensor, key: Any, saved: Mapping[str, Any], needed: list[str]) -> None:
    for name in needed:
        if name not in saved:
            raise ValueError(
                f"loaded state dict lacks {name!r} for parameter {key}; it has {sorted(saved)}. "
                f"It must come from {optimizer}.state_dict() with the same options"
            )
        if name != "step" and saved[name].shape != param.shape:
            raise ValueError(
                f"loaded state dict has {name!r} of shape {tuple(saved[name].shape)} for parameter {key} of shape "
                f"{tuple(param.shape)}; build the model and the optimizer as they were when it was saved"
            )


def restore(optimizer: ExtrapOptimizer, saved: Mapping[str, Any]) -> None:
    """Copy the saved values into the state, because torch has cast them to the dtype of the parameter."""
    for group, saved_group in zip(optimizer.param_groups, saved["param_groups"]):
        for param, key in zip(group["params"], saved_group["params"]):
            entries = saved["state"].get(key, {})
            if entries:
                layout = StateLayout.of(optimizer.rule.SPEC, _final_options(optimizer, saved_group), param.dtype)
                _restore_entries(layout, param, optimizer.state[param], entries)


def _restore_entries(layout: StateLayout, param: Tensor, state: dict[str, Any], saved: Mapping[str, Any]) -> None:
    for name, value in saved.items():
        if name == "step":
            state[name] = torch.as_tensor(value, dtype=torch.float32).detach().clone().cpu()
        elif name == "extrapolated":
            state[name] = torch.empty_like(param, requires_grad=False).copy_(value)
        elif isinstance(value, Tensor) and value.shape == param.shape:
            state[name] = layout.empty(name, param).copy_(value)


@torch.no_grad()
def only_creates_state(optimizer: ExtrapOptimizer) -> bool:
    """Create the state and return True if this is a step with zero gradients at learning rate 0; else return False.

    ``torch.distributed.checkpoint.state_dict`` takes such a step, in any mode, to have tensors that it can load
    into. With noise or an ``extrap_lr`` of its own it would move the parameters, which may be loaded already.
    """
    if any(float(group["lr"]) != 0.0 for group in optimizer.param_groups):
        return False
    stepper = Stepper()  # a temporary one, which releases what it has bound
    executors = stepper.bind(optimizer, range(len(optimizer.param_groups)))
    if float(backends.gradient_square_sum(executors, None)) != 0.0:
        return False
    if not optimizer.param_groups[0]["train_mode"]:
        modes.put_base(optimizer.state)
    return True
