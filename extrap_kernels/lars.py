"""ExtrapLARS: layer-wise adaptive rate scaling with extrapolation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Union

from torch import Tensor
from typing_extensions import Unpack

from extrap_kernels import options
from extrap_kernels.optimizer import ExtrapOptimizer
from extrap_kernels.reference.rules import lars


class ExtrapLARS(ExtrapOptimizer):
    """LARS (You et al. 2017) whose gradients are taken at an extrapolated point.

    :class:`extrap_kernels.ExtrapSGD` on gradients scaled, tensor by tensor, by::

        trust = trust_coefficient * |x| / (|g| + weight_decay * |x| + eps)      # 1 where a norm is 0

    where ``|g|`` is taken before decay is added to the gradient. The norms cost one more read of ``x`` and of the
    gradient per step.

    Args:
        params: parameters or param groups, as in :class:`extrap_kernels.ExtrapSGD`.
        lr: outer learning rate, a float or a one-element tensor (default: 1e-3).
        momentum: momentum factor (default: 0, which keeps no momentum buffer).
        dampening: dampening for momentum; ignored in a parameter's first step (default: 0).
        weight_decay: decay of the base iterate (default: 0).
        nesterov: Nesterov momentum, in PyTorch's form (default: False).
        trust_coefficient: factor of the ratio of norms (default: 1e-3).
        eps: added to the denominator (default: 1e-8).
        maximize: maximize the objective (default: False).
        decoupled_weight_decay: as in :class:`extrap_kernels.ExtrapSGD` (default: False); a decoupled decay
            does not count in ``trust``.
        layer_adaptation: scale by ``trust`` (default: True). False, mostly in the param group of biases and norms,
            makes this :class:`extrap_kernels.ExtrapSGD`; see :func:`extrap_kernels.param_groups`.
        backend: ``"auto"`` (default) or the name of a backend; see :func:`extrap_kernels.backends.resolve`.
        **extrapolation_options: see :class:`extrap_kernels.options.ExtrapolationOptions`.

    Raises:
        ValueError: an option is invalid; the message names it and its value.
    """

    rule = lars

    def __init__(
        self,
        params: Any,
        lr: Union[float, Tensor] = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        trust_coefficient: float = 1e-3,
        eps: float = 1e-8,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
        layer_adaptation: bool = True,
        backend: str = "auto",
        **extrapolation_options: Unpack[options.ExtrapolationOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "trust_coefficient": trust_coefficient,
            "eps": eps,
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
            "layer_adaptation": layer_adaptation,
            **options.with_defaults(extrapolation_options),
        }
        self.check_group(defaults)
        super().__init__(params, defaults, backend)

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise ValueError if an option of ``group`` is invalid."""
        super().check_group(group)
        options.check_momentum(group)
        for name in ("trust_coefficient", "eps"):
            if not group[name] >= 0.0:
                raise ValueError(f"Invalid {name} value: {group[name]}")
