"""Optimizers by name, as configuration files and command lines have them."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import signature
from typing import Any, Union

import torch

import extrap_kernels
from extrap_kernels.grouping import param_groups
from extrap_kernels.optimizer import ExtrapOptimizer


def optimizers() -> dict[str, Any]:
    """Return every optimizer of the package by its name: ``"sgd"`` for :class:`extrap_kernels.ExtrapSGD`, and so on."""
    exported = [getattr(extrap_kernels, name) for name in extrap_kernels.__all__]
    types = [each for each in exported if isinstance(each, type) and issubclass(each, ExtrapOptimizer)]
    return {_key(each.__name__): each for each in types}


def _key(name: str) -> str:
    return name.lower().removeprefix("extrap")


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
    types = optimizers()
    if _key(name) not in types:
        raise ValueError(f"Invalid name value: {name!r}; the optimizers are {list(types)}")
    optimizer_type = types[_key(name)]
    if isinstance(params, torch.nn.Module):
        default = signature(optimizer_type).parameters["weight_decay"].default
        params = param_groups(params, options.get("weight_decay", default))
    optimizer: ExtrapOptimizer = optimizer_type(params, **options)
    return optimizer
