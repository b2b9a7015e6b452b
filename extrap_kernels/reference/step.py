"""One training step of one parameter in plain PyTorch: the readable twin of ``csrc/core/step.h``.

Every operation rounds once to the precision of the base iterate, in the order written here, and nothing is fused. So
the native kernels can give the same bits. The steps are those of section 1 of ``docs/design.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple, Optional

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
from extrap_kernels.state.float24 import SplitFormat, stored_base
from extrap_kernels.state.format import Format
from extrap_kernels.state.layout import State, StateLayout, beside
from extrap_kernels.state.owners import adopt
from extrap_kernels.state.recovery import INNER_LR


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


def _extrapolation_along(group: Mapping[str, Any], u: Tensor, z: Tensor, m: Tensor) -> Optional[Tensor]:
    """Return what ``y`` lies along after an update, or None where it is ``x``. A new direction is a line here."""
    if group["extrapolation"] in ("past_gradient", "gradient_difference"):
        return z
    if group["extrapolation"] == "past_update":
        return u
    return m if group["extrapolation"] == "momentum" else None


def _extrapolated(group: Mapping[str, Any], x: Tensor, along: Optional[Tensor], extrap_lr: float) -> Tensor:
    """Return ``y`` without noise."""
    if along is None or extrap_lr == 0:
        return x  # also where the direction is not finite
    if group["extrap_scale"] == "adaptive":
        along = along * x * x
    return x - along * extrap_lr


class _Numbers(NamedTuple):
    """What a step reads: ``raw`` is the gradient before decay joined it; ``stored`` is what ``buffers`` come from."""

    x: Tensor
    raw: Tensor
    g: Tensor
    l: Tensor
    stored: list[tuple[Tensor, Optional[Tensor], Format]]
    buffers: dict[str, Tensor]
    decay: float


def _read(
    rule: ModuleType,
    layout: StateLayout,
    launch: Launch,
    entry: ParamEntry,
    state: State,
    grad: Tensor,
    local: Optional[Tensor],
) -> _Numbers:
    """Return the numbers of a step; see :func:`step_parameter`."""
    group, param, values = launch.group, entry.param, unpack(launch.row)
    x = _real(stored_base(state) if layout.has_base else param)
    if launch.adopts and layout.has_base:
        adopt(x, _real(param))
    stored = [(_real(state[name]), state.get(beside(name)), form) for name, form in zip(layout.buffers, layout.formats)]
    buffers = {name: form.decode(kept, x.dtype, e) for name, (kept, e, form) in zip(layout.buffers, stored)}
    inner_lr = float(state[INNER_LR]) if layout.recovers_base else 0.0
    if inner_lr != 0:
        x = x + next(iter(buffers.values())) * inner_lr
    grad_scale, clip = values["grad_scale"], values["clip"]
    raw = g = _unscaled(grad, x, group["maximize"], grad_scale, clip)
    l = g if local is None else _unscaled(local, x, group["maximize"], grad_scale, clip)
    decay = 0.0 if rule.SPEC.own_decay else values["weight_decay"]
    if decay != 0 and not group["decoupled_weight_decay"]:
        l, g = l + x * decay, g + x * decay
    return _Numbers(x, raw, g, l, stored, buffers, decay)


def _kept_base(layout: StateLayout, state: State, x: Tensor, random: Optional[Tensor]) -> Tensor:
    """Return ``x`` as it is stored once this is done; ``random``: a word for each number that may round it."""
    form = layout.base_format
    if not isinstance(form, SplitFormat):
        return x  # the tensor of the state itself
    kept = form.rounded(x, random)
    form.store(state["base"], kept, None, state[beside("base")])
    return kept


def _along(group: Mapping[str, Any], g: Tensor, l: Tensor) -> Tensor:
    """Return the gradient that the rule makes its direction of."""
    return l - g if group["extrapolation"] == "gradient_difference" else l


def direction_of(
    rule: ModuleType,
    layout: StateLayout,
    launch: Launch,
    entry: ParamEntry,
    state: State,
    grad: Tensor,
    local: Optional[Tensor],
) -> Tensor:
    """Return what ``extrap_norm`` takes the norm of, of ``"momentum"`` as it is before the step.

    That is the direction in its units: with ``extrap_scale="adaptive"``, those of ``x`` before the step. For the
    arguments see :func:`step_parameter`. Not for rules with a norm, but along the momentum.
    """
    n = _read(rule, layout, launch, entry, state, grad, local)
    along = _direction_to_come(rule, launch.group, int(state["step"]) + 1, n)
    return along * n.x if launch.group["extrap_scale"] == "adaptive" else along


def _direction_to_come(rule: ModuleType, group: Mapping[str, Any], step: int, n: _Numbers) -> Tensor:
    if group["extrapolation"] == "momentum":
        return next(iter(n.buffers.values()))
    if group["extrapolation"] == "past_update":
        copies = {name: buffer.clone() for name, buffer in n.buffers.items()}
        update: Tensor = rule.direction(group, step, n.g, n.l, n.x, copies, 1.0)[0]
        return update
    z: Tensor = rule.extragradient_direction(group, step, n.g, _along(group, n.g, n.l), n.buffers, 1.0)
    return z


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
    x, raw, g, l, stored, buffers, decay = _read(rule, layout, launch, entry, state, grad, local)
    group, param, values = launch.group, entry.param, unpack(launch.row)
    lr = values["lr"]
    # Rounded first: what is 0 in the precision of the arithmetic does not extrapolate.
    inner_lr = values["extrap_lr"] * values["extrap_ratio"]
    extrap_lr = torch.tensor(inner_lr, dtype=x.dtype, device="cpu").item()
    step = int(state["step"]) + 1
    scales = rule.SPEC.norm is not None and launch.layer_adaptation
    trust = rule.trust_ratio(group, step, x, raw, g, buffers, entry.shard) if scales else 1.0
    if launch.phase is Phase.EXTRAPOLATE:
        along = rule.extragradient_direction(group, step, g, l, buffers, trust)
        _kept_base(layout, state, x, None)
        param.copy_(_like(param, _extrapolated(group, x, along, extrap_lr)))
        return
    state["step"] += 1
    has_noise = launch.noise is not None and (launch.noise_scale != "filter" or param.dim() > 1)
    amplitude = _amplitude(group, x, l, entry.shard) if has_noise else 0.0
    u, z = rule.direction(group, step, g, _along(group, g, l), x, buffers, trust)
    random = None
    if layout.rounds:
        at = _positions(param, entry.shard)
        random = rounding_words(at, seed=int(values["seed"]), parameter=entry.index, step=step)
    for (kept, exponents, form), buffer in zip(stored, buffers.values()):
        if kept is not buffer:
            form.store(kept, buffer, random if form.random else None, exponents)
    if decay != 0 and group["decoupled_weight_decay"]:
        x.mul_(1.0 - lr * decay)
    x.sub_(u * lr)
    x = _kept_base(layout, state, x, random)
    if layout.recovers_base:
        state[INNER_LR].fill_(extrap_lr)
    along = _extrapolation_along(group, u, z, next(iter(buffers.values()), u))
    y = _extrapolated(group, x, along, extrap_lr)
    if launch.noise is not None and has_noise:
        at = _positions(param, entry.shard)
        n = noise(launch.noise, at, key=int(values["key"]), parameter=entry.index, step=step)
        y = y + n.to(x.dtype) * amplitude
    param.copy_(_like(param, y))
