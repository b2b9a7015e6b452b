"""What gradients are multiplied by before a step, as numbers or as tensors that only the device reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Union

from torch import Tensor


@dataclass(frozen=True)
class Scaling:
    """Factors of the gradients in one step.

    Attributes:
        grad_scale: what the gradients were multiplied by, as GradScaler does; they are divided by it.
        clip: factor of the gradients once they are unscaled.
        found_inf: 0-dim or one-element float32 tensor; where it is not 0, the step changes nothing. None: no such flag.

    Backends of the host get floats and no flag. Those of the device may get tensors of one element, which they must
    not read on the host.
    """

    grad_scale: Union[float, Tensor]
    clip: Union[float, Tensor]
    found_inf: Optional[Tensor]


def clip_coefficient(norm: Union[float, Tensor], max_norm: Optional[float]) -> Union[float, Tensor]:
    """Return the factor of ``torch.nn.utils.clip_grad_norm_``; not a number where the norm is none."""
    if max_norm is None:
        return 1.0
    coefficient = max_norm / (norm + 1e-6)
    if isinstance(coefficient, Tensor):
        return coefficient.clamp(max=1.0)
    return 1.0 if coefficient > 1.0 else coefficient
