"""One training step of one parameter in plain PyTorch: the readable twin of ``csrc/core/step.h``.

Every operation rounds once to the precision of the base iterate, in the order written here, and nothing is fused. So
the native kernels can give the same bits. The steps are those of section 1 of ``docs/design.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, Optional

import torch
from torch import Tensor

from extrap_kernels.backends.param_entry import ParamEntry
from extrap_kernels.launch import Launch, Phase
from extrap_kernels.layout import is_dense
from extrap_kernels.reference.noise import noise
from extrap_kernels.reference.norms import rms
from extrap_kernels.reference.random_bits import rounding_words
from extrap_kernels.scalars import unpack
from extrap_kernels.shards import Shard
from extrap_kernels.state.layout import State, StateLayout, exponents_of
from extrap_kernels.state.owners import adopt


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor.resolve_neg()


def _like(param: Tensor, real: Tensor) -> Tensor:
    return torch.view_as_complex(real.contiguous()) if param.is_complex() else real


def _positions(param: Tensor, shard: Shard | None) -> Tensor:
    """Return the position of each element: in memory if dense, row-major otherwise, in the whole tensor for shards."""
    real = _real(param)
    flat = torch.arange(real.numel(), device=param.device)
    if shard is not None:
        return shard.positions(flat).view(real.shape)
    return flat.as_strided(real.shape, real.stride()) if is_dense(param) else flat.view(real.shape)


def _amplitude(group: Mapping[str, Any], x: Tensor, l: Tensor, shard: Shard | None) -> Tensor | float:
    """Return ``noise_std * s``, from the ``x`` before the update."""
    std = float(group["noise_std"])
    scale = group["noise_scale"]
    if scale == "absolute":
        return std
    if scale == "gradient":
        return l.abs() * std
    return rms(x, by_row=scale == "filter", shard=shard).to(x.dtype) * std


def _unscaled(grad: Tensor, like: Tensor, maximize: bool, grad_scale: float, clip: float) -> Tensor:
    grad = _real(grad).to(like.dtype)
    if grad_scale != 1:
        grad = grad / grad_scale
    if clip != 1:
        grad = grad * clip
    return -grad if maximize else grad


def _extrapolated(group: Mapping[str, Any], x: Tensor, u: Tensor, z: Tensor, extrap_lr: float) -> Tensor:
    """Return ``y`` without noise. A new direction is a line here."""
    if group["extrapolation"] == "past_gradient":
        return x - z * extrap_lr
    if group["extrapolation"] == "past_update":
        return x - u * extrap_lr
    return x


def step_parameter(
    rule: ModuleType,
    layout: StateLayout,
    launch: Launch,
    entry: ParamEntry,
    state: State,
    grad: Tensor,
    local: Optional[Tensor],
) -> None:
    """Update the base iterate and write the next extrapolated point into the parameter.

    Args:
        rule: module of :mod:`extrap_kernels.reference.rules`.
        layout: layout of the parameter's state.
        launch: options and phase; ``Phase.EXTRAPOLATE`` only moves the parameter.
        entry: the parameter, which holds ``y``.
        state: its state, changed in place.
        grad: averaged gradient at ``y``.
        local: this worker's own gradient; None if it is ``grad``.
    """
    group, param, values = launch.group, entry.param, unpack(launch.row)
    x = _real(state["base"] if layout.has_base else param)
    if launch.adopts and layout.has_base:
        adopt(x, _real(param))
    stored = [
        (_real(state[name]), state.get(exponents_of(name)), form) for name, form in zip(layout.buffers, layout.formats)
    ]
    buffers = {name: form.decode(kept, x.dtype, e) for name, (kept, e, form) in zip(layout.buffers, stored)}
    grad_scale, clip = values["grad_scale"], values["clip"]
    raw = g = _unscaled(grad, x, group["maximize"], grad_scale, clip)
    l = g if local is None else _unscaled(local, x, group["maximize"], grad_scale, clip)
    lr, decay = values["lr"], 0.0 if rule.SPEC.own_decay else values["weight_decay"]
    extrap_lr = values["extrap_lr"] * values["extrap_ratio"]
    if decay != 0 and not group["decoupled_weight_decay"]:
        l, g = l + x * decay, g + x * decay
    step = int(state["step"]) + 1
    scales = rule.SPEC.norm is not None and launch.layer_adaptation
    trust = rule.trust_ratio(group, step, x, raw, g, buffers, entry.shard) if scales else 1.0
    if launch.phase is Phase.EXTRAPOLATE:
        z = rule.extragradient_direction(group, step, g, l, buffers, trust)
        param.copy_(_like(param, x - z * extrap_lr))
        return
    state["step"] += 1
    has_noise = launch.noise is not None and (launch.noise_scale != "filter" or param.dim() > 1)
    amplitude = _amplitude(group, x, l, entry.shard) if has_noise else 0.0
    u, z = rule.direction(group, step, g, l, x, buffers, trust)
    random = None
    if any(form.random for form in layout.formats):
        at = _positions(param, entry.shard)
        random = rounding_words(at, seed=int(values["seed"]), parameter=entry.index, step=step)
    for (kept, exponents, form), buffer in zip(stored, buffers.values()):
        if kept is not buffer:
            form.store(kept, buffer, random if form.random else None, exponents)
    if decay != 0 and group["decoupled_weight_decay"]:
        x.mul_(1.0 - lr * decay)
    x.sub_(u * lr)
    y = _extrapolated(group, x, u, z, extrap_lr)
    if launch.noise is not None and has_noise:
        at = _positions(param, entry.shard)
        n = noise(launch.noise, at, key=int(values["key"]), parameter=entry.index, step=step)
        y = y + n.to(x.dtype) * amplitude
    param.copy_(_like(param, y))
