"""One training step of one parameter in plain PyTorch: the readable twin of ``csrc/core/step.h``.

Every operation rounds once to the precision of the base iterate, in the order written here and in no fused form, so
that the native kernels can give the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from extrap_kernels.layout import is_dense
from extrap_kernels.reference.norms import rms
from extrap_kernels.reference.philox import noise
from extrap_kernels.shards import Shard


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor.resolve_neg()


def _positions(param: Tensor, shard: Shard | None) -> Tensor:
    """Position of each element: in memory for dense parameters, row-major for others, in the whole for shards."""
    real = _real(param)
    flat = torch.arange(real.numel(), device=param.device)
    if shard is not None:
        return shard.positions(flat).view(real.shape)
    return flat.as_strided(real.shape, real.stride()) if is_dense(param) else flat.view(real.shape)


def _amplitude(group: Mapping[str, Any], param: Tensor, x: Tensor, l: Tensor, shard: Shard | None) -> Tensor | float:
    """Return ``noise_std * s``, from the ``x`` before the correction."""
    std = group["noise_std"]
    scale = group["noise_scale"]
    if scale == "absolute":
        return std
    if scale == "gradient":
        return l.abs() * std
    if scale == "filter" and param.dim() < 2:
        return 0.0
    return rms(x, by_row=scale == "filter", shard=shard).to(x.dtype) * std


def _unscaled(grad: Tensor, like: Tensor, maximize: bool, grad_scale: float, clip: float) -> Tensor:
    grad = _real(grad).to(like.dtype)
    if grad_scale != 1:
        grad = grad / grad_scale
    if clip != 1:
        grad = grad * clip
    return -grad if maximize else grad


def step_parameter(
    rule: ModuleType,
    group: Mapping[str, Any],
    param: Tensor,
    state: Mapping[str, Tensor],
    grad: Tensor,
    local: Tensor | None,
    *,
    key: int,
    index: int,
    correct: bool,
    grad_scale: float,
    clip: float,
    shard: Shard | None = None,
) -> None:
    """Correct the base iterate and write the next extrapolated point into ``param`` (DESIGN section 1, steps 1 to 5).

    Args:
        rule: module of :mod:`extrap_kernels.reference` with ``direction`` and ``extragradient_direction``.
        group: the param group with the options of this step.
        param: the parameter, which holds ``y``.
        state: ``step``, ``base`` and the buffers of the rule; changed in place.
        grad: averaged gradient at ``y``.
        local: this worker's own gradient, or None where it is ``grad``.
        key: seed plus rank.
        index: position of the parameter in the optimizer.
        correct: False for the first half of an extragradient step, which only moves ``param``.
        grad_scale: what the gradients were multiplied by.
        clip: factor of the gradients once they are unscaled.
        shard: where all these tensors lie if they are parts of larger ones, whose other parts other processes step.
    """
    x = _real(state["base"])
    if not correct:
        # x = p where somebody changed the parameter; a narrow one holds only the rounded base iterate elsewhere.
        held = _real(param).to(x.dtype)
        x.copy_(torch.where(held == x.to(_real(param).dtype).to(x.dtype), x, held))
    buffers = {name: _real(state[name]) for name in rule.state_names(group)}
    raw = g = _unscaled(grad, x, group["maximize"], grad_scale, clip)
    l = g if local is None else _unscaled(local, x, group["maximize"], grad_scale, clip)
    lr, decay = float(group["lr"]), float(group["weight_decay"])
    if getattr(rule, "OWN_DECAY", False):
        decay = 0.0
    extrap_lr = lr * group["extrap_ratio"] if group["extrap_lr"] is None else float(group["extrap_lr"])
    if decay != 0 and not group["decoupled_weight_decay"]:
        l, g = l + x * decay, g + x * decay
    step = int(state["step"]) + 1
    trust = rule.trust_ratio(group, step, x, raw, g, buffers, shard) if hasattr(rule, "trust_ratio") else 1.0
    if not correct:
        z = rule.extragradient_direction(group, step, g, l, buffers, trust)
        param.copy_(_like(param, x - z * extrap_lr))
        return
    state["step"] += 1
    amplitude = _amplitude(group, param, x, l, shard) if group["noise"] is not None else 0.0
    u, z = rule.direction(group, step, g, l, x, buffers, trust)
    if decay != 0 and group["decoupled_weight_decay"]:
        x.mul_(1.0 - lr * decay)
    x.sub_(u * lr)
    y = x
    if group["extrapolation"] in ("past_gradient", "past_update"):
        y = y - (z if group["extrapolation"] == "past_gradient" else u) * extrap_lr
    if group["noise"] is not None:
        n = noise(group["noise"], _positions(param, shard), key=key, parameter=index, step=step)
        y = y + n.to(x.dtype) * amplitude
    param.copy_(_like(param, y))


def _like(param: Tensor, real: Tensor) -> Tensor:
    return torch.view_as_complex(real.contiguous()) if param.is_complex() else real
