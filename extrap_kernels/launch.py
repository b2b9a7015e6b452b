"""The options of one launch: those of the param group, read once per step, and the factors of the gradients."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Optional, Union

import torch
from torch import Tensor

from extrap_kernels import options, scalars


class Phase(enum.Enum):
    """What a launch does: a whole step, or the first half of an extragradient step, which moves only ``y``."""

    UPDATE = "update"
    EXTRAPOLATE = "extrapolate"


PHASES = tuple(phase.value for phase in Phase)


@dataclass(frozen=True)
class GradScaling:
    """Factors of the gradients in one step.

    Attributes:
        grad_scale: factor that GradScaler multiplied the gradients by; the step divides by it.
        clip: factor that the unscaled gradients are multiplied by.
        found_inf: one-element float32 tensor; if it is not 0, the step changes nothing. None: there is no such flag.

    Backends of the host get floats and no flag. Backends of the device may get one-element tensors, which they must not
    read on the host.
    """

    grad_scale: Union[float, Tensor] = 1.0
    clip: Union[float, Tensor] = 1.0
    found_inf: Optional[Tensor] = None


@dataclass(frozen=True)
class Launch:
    """The arguments of a launch besides its tensors.

    Attributes:
        group: the param group.
        phase: a whole step, or its first half.
        row: all scalars (:mod:`extrap_kernels.scalars`); those in ``on_device`` have a placeholder.
        noise: kind of the noise that this launch adds to ``y``, or None.
        noise_scale: option of that name.
        on_device: scalars that only the device reads, by name: tensors of one float32 or float64 element.
        found_inf: see :class:`GradScaling`.
    """

    group: Mapping[str, Any]
    phase: Phase
    row: bytes
    noise: Optional[str]
    noise_scale: str
    on_device: dict[str, Tensor] = field(default_factory=dict)
    found_inf: Optional[Tensor] = None

    @property
    def adopts(self) -> bool:
        """Whether a parameter that does not hold the rounded base iterate has been changed and is the new one."""
        return self.phase is Phase.EXTRAPOLATE or not options.extrapolates(self.group)

    @property
    def layer_adaptation(self) -> bool:
        """Whether a rule with a norm scales tensor by tensor."""
        return bool(self.group.get("layer_adaptation", True))

    @classmethod
    def of(
        cls,
        group: Mapping[str, Any],
        values: Mapping[str, Any],
        *,
        phase: Phase = Phase.UPDATE,
        rank: int = 0,
        scaling: GradScaling = GradScaling(),
        device: Optional[torch.device] = None,
    ) -> Launch:
        """Make a launch from the options of a param group and from what only the step knows.

        Args:
            group: the param group.
            values: its scalars, see :func:`extrap_kernels.options.scalars_of`.
            phase: a whole step, or its first half.
            rank: added to the seed of the noise.
            scaling: factors of the gradients.
            device: of the kernels. They read scalars that are tensors on such a device; None: the host reads all.
        """
        values = {
            **values,
            "key": (values["seed"] + rank) % 2**64,
            "phase": 0 if phase is Phase.UPDATE else 1,
            "grad_scale": scaling.grad_scale,
            "clip": scaling.clip,
        }
        on_device: dict[str, Tensor] = {}
        for name in scalars.ON_DEVICE:
            value = values[name]
            if not isinstance(value, Tensor):
                continue
            if device is not None and value.device.type == device.type:
                on_device[name] = _on(device, value)
                values[name] = 0.0
            else:
                values[name] = float(value)
        noise = group["noise"] if phase is Phase.UPDATE else None
        found_inf = scaling.found_inf
        if found_inf is not None and device is not None:
            found_inf = _on(device, found_inf)
        return cls(group, phase, scalars.pack(values), noise, group["noise_scale"], on_device, found_inf)

    def with_inner_lr_times(self, factor: Union[float, Tensor], device: torch.device) -> Launch:
        """Return this launch with another inner learning rate.

        Args:
            factor: a number, or a 0-dim tensor for kernels that read it on the device.
            device: of the kernels.
        """
        values, on_device = scalars.unpack(self.row), dict(self.on_device)
        extrap_lr = on_device.pop("extrap_lr", values["extrap_lr"])
        if isinstance(factor, Tensor) and isinstance(extrap_lr, Tensor):
            extrap_lr = extrap_lr.to(factor.device, torch.float64, non_blocking=True)
        extrap_lr = extrap_lr * factor
        if isinstance(extrap_lr, Tensor):
            on_device["extrap_lr"], extrap_lr = _on(device, extrap_lr), 0.0
        row = scalars.pack({**values, "extrap_lr": extrap_lr})
        return replace(self, row=row, on_device=on_device)


def _on(device: torch.device, scalar: Tensor) -> Tensor:
    """Return a scalar that kernels on ``device`` can read; the host waits for no GPU.

    Those of a model over several GPUs lie on one of them: GradScaler's where the loss is, the coefficient of clipping
    where the norm was taken.
    """
    return scalar.to(device, torch.float32 if scalar.dtype == torch.float32 else torch.float64, non_blocking=True)


def clip_coefficient(norm: Union[float, Tensor], max_norm: Optional[float]) -> Union[float, Tensor]:
    """Return the factor of ``torch.nn.utils.clip_grad_norm_``; NaN if the norm is NaN."""
    if max_norm is None:
        return 1.0
    coefficient = max_norm / (norm + 1e-6)
    if isinstance(coefficient, Tensor):
        return coefficient.clamp(max=1.0)
    return 1.0 if coefficient > 1.0 else coefficient
