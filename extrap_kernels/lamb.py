"""ExtrapLAMB: layer-wise adaptive moments with extrapolation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Union

from torch import Tensor
from typing_extensions import Unpack

from extrap_kernels import options
from extrap_kernels.optimizer import ExtrapOptimizer
from extrap_kernels.reference.rules import lamb


class ExtrapLAMB(ExtrapOptimizer):
    """LAMB (You et al. 2020) whose gradients are taken at an extrapolated point.

    One step, given the gradient ``g`` at the extrapolated point ``y``, with Adam's ``m``, ``v`` and ``d``::

        u = m / (1 - beta1**t) / d + weight_decay * x
        x = x - lr * u * |x| / |u|                    # for each tensor; the ratio is 1 where a norm is 0
        y = x - extrap_lr * g / d

    The norms cost one more read of ``x``, the gradient and the moments per step.

    Args:
        params: parameters or param groups, as in :class:`extrap_kernels.ExtrapAdam`.
        lr: outer learning rate, a float or a one-element tensor (default: 1e-3).
        betas: decay of the two moments (default: (0.9, 0.999)).
        eps: added to the denominator (default: 1e-6).
        weight_decay: decay; part of the update, so ``|x| / |u|`` scales it, too (default: 0).
        maximize: maximize the objective (default: False).
        layer_adaptation: scale by ``|x| / |u|`` (default: True). False, mostly in the param group of biases and norms,
            takes 1 in its place: AdamW with this ``u``; see :func:`extrap_kernels.param_groups`.
        backend: ``"auto"`` (default) or the name of a backend; see :func:`extrap_kernels.backends.resolve`.
        **extrapolation_options: see :class:`extrap_kernels.options.ExtrapolationOptions`.

    Raises:
        ValueError: an option is invalid; the message names it and its value.
    """

    rule = lamb

    def __init__(
        self,
        params: Any,
        lr: Union[float, Tensor] = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
        layer_adaptation: bool = True,
        backend: str = "auto",
        **extrapolation_options: Unpack[options.ExtrapolationOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "layer_adaptation": layer_adaptation,
            **options.with_defaults(extrapolation_options),
        }
        self.check_group(defaults)
        super().__init__(params, defaults, backend)

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise ValueError if an option of ``group`` is invalid."""
        super().check_group(group)
        options.check_moments(group)
