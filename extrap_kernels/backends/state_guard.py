"""What tells whether an optimizer consists of the same objects as before, where there is no native module."""

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


class StateGuard:
    """Which parameters an optimizer's groups have, and which dict is the state of each.

    Twin: ``csrc/state_guard.cpp``.
    """

    def __init__(self, state: dict[Tensor, Any], param_groups: list[dict[str, Any]]) -> None:
        # Kept, so that no other object can get the identity of one of them.
        self._known = list(_objects(state, param_groups))

    def matches(self, state: dict[Tensor, Any], param_groups: list[dict[str, Any]]) -> bool:
        """Whether both still consist of the same objects in the same order."""
        now = list(_objects(state, param_groups))
        return len(now) == len(self._known) and all([a is b for a, b in zip(now, self._known)])
