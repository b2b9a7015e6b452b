"""ExtrapSGD: stochastic gradient descent with extrapolation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional, Union

from torch import Tensor
from typing_extensions import Unpack

from extrap_kernels import options
from extrap_kernels.optimizer import ExtrapOptimizer
from extrap_kernels.reference.rules import sgd


class ExtrapSGD(ExtrapOptimizer):
    """Drop-in replacement of ``torch.optim.SGD`` whose gradients are taken at an extrapolated point.

    One step, given the gradient ``g`` at the extrapolated point ``y`` (Lin et al., ICML 2020, arXiv 2006.05720)::

        v = momentum * v + (1 - dampening) * g        # v = g in the first step
        u = g + momentum * v  if nesterov else  v
        x = x - lr * u
        y = x - extrap_lr * g                         # what the parameters hold

    Args:
        params: parameters or param groups; float32, float64, bfloat16, float16 or complex, dense gradients. For
            bfloat16 and float16 parameters, the base iterate is the master copy.
        lr: outer learning rate, a float or a one-element tensor (default: 1e-3).
        momentum: momentum factor (default: 0, which keeps no momentum buffer).
        dampening: dampening for momentum; ignored in a parameter's first step (default: 0).
        weight_decay: decay of the base iterate (default: 0).
        nesterov: Nesterov momentum, in PyTorch's form (default: False).
        maximize: maximize the objective (default: False).
        foreach: accepted for compatibility, without effect: every backend steps all tensors at once.
        differentiable: must be False.
        fused: accepted for compatibility, without effect: ``backend`` decides.
        decoupled_weight_decay: False (default): the decay is added to the gradient, as in ``torch.optim.SGD``, but
            uses the base iterate. True: the base iterate is multiplied by ``1 - lr * weight_decay``.
        backend: ``"auto"`` (default) or the name of a backend; see :func:`extrap_kernels.backends.resolve`.
        **extrapolation_options: see :class:`extrap_kernels.options.ExtrapolationOptions`.

    Raises:
        ValueError: an option is invalid; the message names it and its value.
    """

    rule = sgd

    def __init__(
        self,
        params: Any,
        lr: Union[float, Tensor] = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: Union[float, Tensor] = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: Optional[bool] = None,
        differentiable: bool = False,
        fused: Optional[bool] = None,
        decoupled_weight_decay: bool = False,
        backend: str = "auto",
        **extrapolation_options: Unpack[options.ExtrapolationOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
            **options.with_defaults(extrapolation_options),
        }
        self.check_group(defaults)
        super().__init__(params, defaults, backend)

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise ValueError if an option of ``group`` is invalid."""
        super().check_group(group)
        options.check_momentum(group)
