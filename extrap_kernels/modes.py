"""Train and eval mode: which point the parameters hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

State = Mapping[Tensor, dict[str, Any]]


@torch.no_grad()
def put_base(state: State) -> None:
    """Put the base iterate into the parameters, rounded to their dtype; keep their former values in the state."""
    for param, entries in state.items():
        if "base" in entries:
            entries["extrapolated"] = param.clone(memory_format=torch.preserve_format)
            param.copy_(entries["base"])


@torch.no_grad()
def put_extrapolated(state: State) -> None:
    """Undo :func:`put_base`, bit for bit."""
    for param, entries in state.items():
        if "extrapolated" in entries:
            param.copy_(entries.pop("extrapolated"))


@torch.no_grad()
def return_to_base(state: State, params: Iterable[Tensor], *, only_without_gradient: bool) -> None:
    """Put the base iterate into ``params`` if no update follows the first half of an extragradient step."""
    for param in params:
        if "base" in state.get(param, {}) and not (only_without_gradient and param.grad is not None):
            param.copy_(state[param]["base"])
