"""The methods that are compared, each a set of options of the package's optimizers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Optional

import torch

from extrap_kernels import ExtrapAdamW, ExtrapLAMB, ExtrapLARS, ExtrapSGD

# The rule of a workload, and the one with layer-wise learning rates that takes its place.
RULES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "sgd": (ExtrapSGD, ExtrapLARS, {"momentum": 0.9, "weight_decay": 5e-4}),
    "adamw": (ExtrapAdamW, ExtrapLAMB, {"betas": (0.9, 0.98), "weight_decay": 0.01}),
}


@dataclass(frozen=True)
class Method:
    """A way to choose the point where the gradient is taken.

    Attributes:
        options: those of the optimizer that stay as they are.
        tuned: the option that is tuned besides the learning rate; None if there is none.
        values: what it is tried with; the first one is that of the comparison without tuning.
        own_gradients: whether there are several workers, each of which extrapolates, or steps, along a gradient of its
            own; otherwise there is one.
        period: after half of the steps, workers step alone, each along its own gradient and without extrapolation, and
            this many steps lie from one average of their ``x`` to the next (post-local SGD, Lin et al. 2020); each
            keeps its momentum. None: gradients are averaged to the end.
        gradients: how many gradients a step takes.
        layer_wise: whether LARS or LAMB takes the place of SGD or AdamW.
        lr_factor: of the learning rates that are tried.
    """

    options: dict[str, Any] = field(default_factory=lambda: {"extrapolation": None})
    tuned: Optional[str] = None
    values: tuple[float, ...] = ()
    own_gradients: bool = False
    period: Optional[int] = None
    gradients: int = 1
    layer_wise: bool = False
    lr_factor: float = 1.0

    def optimizer(
        self, rule: str, params: Iterable[torch.nn.Parameter], lr: float, value: Optional[float], **others: Any
    ) -> Any:
        """Return the optimizer of one worker; ``value`` is that of the tuned option."""
        plain, layer_wise, common = RULES[rule]
        own = {} if self.tuned is None else {self.tuned: value}
        return (layer_wise if self.layer_wise else plain)(params, lr, **common, **self.options, **own, **others)


def _noise(kind: str, scale: str, *values: float) -> Method:
    return Method({"extrapolation": None, "noise": kind, "noise_scale": scale}, "noise_std", values)


_RADII = (0.05, 0.2)
METHODS = {
    "plain": Method(),
    "past gradient, own": Method({"extrapolation": "past_gradient"}, "extrap_ratio", (1.0, 0.3), own_gradients=True),
    "past gradient": Method({"extrapolation": "past_gradient"}, "extrap_ratio", (1.0, 0.3)),
    "past update": Method({"extrapolation": "past_update"}, "extrap_ratio", (1.0, 3.0)),
    "MSAM": Method({"extrapolation": "momentum", "extrap_norm": "global"}, "extrap_lr", tuple(4 * r for r in _RADII)),
    "SAM": Method(
        {"extrapolation": "extragradient", "extrap_norm": "global"}, "extrap_lr", tuple(-r for r in _RADII), gradients=2
    ),
    "extragradient": Method({"extrapolation": "extragradient"}, "extrap_ratio", (1.0, 0.3), gradients=2),
    "Gaussian noise": _noise("gaussian", "filter", 0.05, 0.2),
    "uniform noise": _noise("uniform", "absolute", 0.002, 0.01),
    "layer-wise rates": Method(layer_wise=True, lr_factor=10.0),
    "post-local": Method(own_gradients=True, period=4),
    "past gradient, own, then post-local": Method(
        {"extrapolation": "past_gradient"}, "extrap_ratio", (1.0, 0.3), own_gradients=True, period=4
    ),
}
