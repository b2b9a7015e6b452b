"""Optimizers by name, as configuration files and command lines have them."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import signature
from typing import Any, Union

import torch

from extrap_kernels.adam import ExtrapAdam, ExtrapAdamW
from extrap_kernels.grouping import param_groups
from extrap_kernels.lamb import ExtrapLAMB
from extrap_kernels.lars import ExtrapLARS
from extrap_kernels.optimizer import ExtrapOptimizer
from extrap_kernels.sgd import ExtrapSGD

OPTIMIZERS: dict[str, Any] = {
    "sgd": ExtrapSGD,
    "adam": ExtrapAdam,
    "adamw": ExtrapAdamW,
    "lars": ExtrapLARS,
    "lamb": ExtrapLAMB,
}


def create(name: str, params: Union[torch.nn.Module, Iterable[Any]], **options: Any) -> ExtrapOptimizer:
    """Return the optimizer with a name.

    Args:
        name: ``"sgd"``, ``"adam"``, ``"adamw"``, ``"lars"`` or ``"lamb"``, in upper or lower case; ``"Extrap"`` may
            stand before it.
        params: parameters, param groups, or a module. Of a module, biases and norms neither decay nor are scaled by
            LARS and LAMB, as :func:`extrap_kernels.param_groups` makes them.
        **options: those of the optimizer, which has its own defaults.

    Raises:
        ValueError: no optimizer has this name, or an option is invalid.
        TypeError: the optimizer has no such option.
    """
    key = name.lower().removeprefix("extrap")
    if key not in OPTIMIZERS:
        raise ValueError(f"Invalid name value: {name!r}; the optimizers are {list(OPTIMIZERS)}")
    if isinstance(params, torch.nn.Module):
        default = signature(OPTIMIZERS[key]).parameters["weight_decay"].default
        params = param_groups(params, options.get("weight_decay", default))
    optimizer: ExtrapOptimizer = OPTIMIZERS[key](params, **options)
    return optimizer
