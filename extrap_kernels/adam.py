"""ExtrapAdam and ExtrapAdamW: Adam with extrapolation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional, Union

from torch import Tensor
from typing_extensions import Unpack

from extrap_kernels import options
from extrap_kernels.optimizer import ExtrapOptimizer
from extrap_kernels.reference.rules import adam


class ExtrapAdam(ExtrapOptimizer):
    """Drop-in replacement of ``torch.optim.Adam`` whose gradients are taken at an extrapolated point.

    One step, given the gradient ``g`` at the extrapolated point ``y`` (Kingma & Ba 2015; Lin et al., ICML 2020)::

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        d = sqrt(v / (1 - beta2**t)) + eps
        x = x - lr * m / (1 - beta1**t) / d
        y = x - extrap_lr * g / d                     # what the parameters hold

    Args:
        params: parameters or param groups; float32, float64, bfloat16, float16 or complex, dense gradients. For
            bfloat16 and float16 parameters, the base iterate is the master copy.
        lr: outer learning rate, a float or a one-element tensor (default: 1e-3).
        betas: decay of the two moments (default: (0.9, 0.999)).
        eps: added to the denominator (default: 1e-8).
        weight_decay: decay of the base iterate (default: 0).
        amsgrad: must be False.
        foreach: accepted for compatibility, without effect: every backend steps all tensors at once.
        maximize: maximize the objective (default: False).
        capturable: accepted for compatibility, without effect: steps on a GPU can always be captured.
        differentiable: must be False.
        fused: accepted for compatibility, without effect: ``backend`` decides.
        decoupled_weight_decay: False (default): the decay is added to the gradient. True: the base iterate is
            multiplied by ``1 - lr * weight_decay``, as in AdamW.
        backend: ``"auto"`` (default) or the name of a backend; see :func:`extrap_kernels.backends.resolve`.
        **extrapolation_options: see :class:`extrap_kernels.options.ExtrapolationOptions`.

    Raises:
        ValueError: an option is invalid; the message names it and its value.
    """

    rule = adam

    def __init__(
        self,
        params: Any,
        lr: Union[float, Tensor] = 1e-3,
        betas: tuple[Union[float, Tensor], Union[float, Tensor]] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: Optional[bool] = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: Optional[bool] = None,
        decoupled_weight_decay: bool = False,
        backend: str = "auto",
        **extrapolation_options: Unpack[options.ExtrapolationOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
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
        options.check_moments(group)
        if group["amsgrad"]:
            raise ValueError("Invalid amsgrad value: True; this optimizer does not keep that maximum")


class ExtrapAdamW(ExtrapAdam):
    """Drop-in replacement of ``torch.optim.AdamW`` whose gradients are taken at an extrapolated point.

    :class:`ExtrapAdam` with decoupled weight decay (Loshchilov & Hutter 2019): before the update, the base iterate is
    multiplied by ``1 - lr * weight_decay``. The arguments are those of :class:`ExtrapAdam`, except that
    ``weight_decay`` is 1e-2 by default, as in ``torch.optim.AdamW``.
    """

    def __init__(
        self,
        params: Any,
        lr: Union[float, Tensor] = 1e-3,
        betas: tuple[Union[float, Tensor], Union[float, Tensor]] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: Optional[bool] = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: Optional[bool] = None,
        backend: str = "auto",
        **extrapolation_options: Unpack[options.ExtrapolationOptions],
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
            backend=backend,
            **extrapolation_options,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # As in torch: loading a state dict of ExtrapAdam does not turn off the decoupled decay.
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True
