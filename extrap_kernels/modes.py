"""Train and eval mode: which point the parameters hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from extrap_kernels import gathered
from extrap_kernels.state.float24 import stored_base
from extrap_kernels.state.owners import adopt_into
from extrap_kernels.state.recovery import INNER_LR, base_from, is_recovered, point_from

State = Mapping[Any, Any]


def _entries(state: State, name: str) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Yield parameters and their state where it has a tensor ``name``; others may keep entries of their own there."""
    for param, entries in state.items():
        if isinstance(param, Tensor) and isinstance(entries, dict) and name in entries:
            yield param, entries


@torch.no_grad()
def put_base(state: State, moment: str) -> None:
    """Put the base iterate into the parameters, rounded to their dtype; what they held is kept in the state.

    Args:
        state: of all parameters, by parameter.
        moment: name of the buffer that base iterates are recovered from where they are not stored.
    """
    for param, entries in _entries(state, "base"):
        entries["extrapolated"] = param.clone(memory_format=torch.preserve_format)
        param.copy_(stored_base(entries))
    for param, entries in _entries(state, INNER_LR):
        if is_recovered(entries):
            entries["extrapolated"] = param.clone(memory_format=torch.preserve_format)
            param.copy_(base_from(param, entries[moment], entries[INNER_LR]))
    _forget_copies(state)


@torch.no_grad()
def put_extrapolated(state: State, moment: str) -> None:
    """Undo :func:`put_base`, bit for bit; for the arguments see there.

    Numbers that were changed in between are a change of the base iterate: there, both points get the new number. Where
    the base iterate is not stored, the extrapolated point gets what it is recovered from.
    """
    for param, entries in _entries(state, "extrapolated"):
        point = entries.pop("extrapolated")
        if "base" in entries:
            changed, moved = adopt_into(entries, param), param
        else:
            displaced = entries[moment], entries[INNER_LR]
            changed, moved = param != base_from(point, *displaced), point_from(param, *displaced)
        param.copy_(torch.where(changed, moved, point))
    _forget_copies(state)


@torch.no_grad()
def return_to_base(state: State, params: Iterable[Tensor], *, only_without_gradient: bool) -> None:
    """Put the base iterate into ``params`` if no update follows the first half of an extragradient step."""
    for param in params:
        if "base" in state.get(param, {}) and not (only_without_gradient and param.grad is not None):
            param.copy_(stored_base(state[param]))
    _forget_copies(state)


def _forget_copies(state: State) -> None:
    """Let go of what others made of the parameters and would use again: autocast's casts, FSDP2's whole tensors."""
    torch.clear_autocast_cache()
    gathered.free(param for param in state if isinstance(param, Tensor))
