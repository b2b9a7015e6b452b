"""Param groups as large-batch recipes have them: biases and norms apart from the weights."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor


def param_groups(
    model: torch.nn.Module,
    weight_decay: float,
    *,
    exclude: Iterable[str] = (),
) -> list[dict[str, Any]]:
    """Return param groups of ``model``: weights, and parameters of fewer than two dims, which are not regularized.

    The latter are biases and the scales and shifts of norms. They do not decay, and LARS and LAMB do not scale their
    steps: their group has ``weight_decay=0`` and ``layer_adaptation=False``, which other optimizers ignore. Frozen
    parameters are left out, as timm's ``param_groups_weight_decay`` does::

        ExtrapLAMB(param_groups(model, weight_decay=0.01), lr=0.01)

    Args:
        model: whose parameters are grouped.
        weight_decay: of the weights; the others get 0.
        exclude: names of weights that belong to the second group, as in ``model.named_parameters()``, with ``*`` for
            any characters: ``"*.pos_embed"``. For timm's models, pass ``model.no_weight_decay()``.

    Raises:
        ValueError: a name in ``exclude`` fits no parameter, or a lazy parameter has no shape yet.
    """
    patterns = list(exclude)
    named = list(model.named_parameters())
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name, _ in named):
            raise ValueError(f"Invalid exclude value: {pattern!r} fits none of the parameters {[n for n, _ in named]}")
    weights: list[Tensor] = []
    others: list[Tensor] = []
    for name, param in named:
        if param.requires_grad:
            excluded = any(fnmatchcase(name, pattern) for pattern in patterns)
            (others if excluded or _dims(name, param) < 2 else weights).append(param)
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0, "layer_adaptation": False},
    ]
    return [group for group in groups if group["params"]]


def _dims(name: str, param: Tensor) -> int:
    if torch.nn.parameter.is_lazy(param):
        raise ValueError(f"parameter {name!r} is lazy and has no shape yet; run the model on a batch before grouping")
    return param.dim()
