"""What tells whether an object in an optimizer's state was exchanged, where there is no native module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor


def _objects(state: dict[Tensor, Any]) -> Iterator[Any]:
    for param, entries in state.items():
        yield param
        yield entries
        if isinstance(entries, dict):
            yield from entries.values()


class StateSnapshot:
    """The objects that an optimizer's state consists of. Twin: ``csrc/state_snapshot.cpp``."""

    def __init__(self, state: dict[Tensor, Any]) -> None:
        # Kept, so that no other object can get the identity of one of them.
        self._known = list(_objects(state))

    def matches(self, state: dict[Tensor, Any]) -> bool:
        """Whether ``state`` still consists of the same objects in the same order."""
        now = list(_objects(state))
        return len(now) == len(self._known) and all([a is b for a, b in zip(now, self._known)])
