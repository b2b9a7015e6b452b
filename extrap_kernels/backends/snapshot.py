"""What tells whether an object in an optimizer was exchanged, where there is no native module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor


def _objects(state: dict[Tensor, Any], param_groups: list[dict[str, Any]]) -> Iterator[Any]:
    for group in param_groups:
        yield from group["params"]
        yield None
    for param, entries in state.items():
        yield param
        yield entries
        if isinstance(entries, dict):
            yield from entries.values()


class StateSnapshot:
    """The objects that an optimizer's state and the parameters of its groups are. Twin: ``csrc/state_snapshot.cpp``."""

    def __init__(self, state: dict[Tensor, Any], param_groups: list[dict[str, Any]]) -> None:
        # Kept, so that no other object can get the identity of one of them.
        self._known = list(_objects(state, param_groups))

    def matches(self, state: dict[Tensor, Any], param_groups: list[dict[str, Any]]) -> bool:
        """Whether both still consist of the same objects in the same order."""
        now = list(_objects(state, param_groups))
        return len(now) == len(self._known) and all([a is b for a, b in zip(now, self._known)])
