"""A toy: sign-SGD."""

from extrap_kernels import options
from extrap_kernels.optimizer import ExtrapOptimizer
from extrap_kernels.reference.rules import sign


class ExtrapSign(ExtrapOptimizer):
    """Steps along the sign of the gradient."""

    rule = sign

    def __init__(self, params, lr=1e-3, gain=1.0, *, backend="auto", **extrapolation_options):
        defaults = {"lr": lr, "gain": gain, "weight_decay": 0, "maximize": False, "decoupled_weight_decay": False}
        super().__init__(params, {**defaults, **options.with_defaults(extrapolation_options)}, backend)
