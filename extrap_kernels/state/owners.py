"""Whose base iterate a tensor is."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary


class BaseOwners:
    """Remembers for which parameter each base iterate was created.

    Code that puts a new ``Parameter`` into a group and carries the old one's state over, as Gaussian Splatting does to
    prune and to reset, means the values of the new one: the base iterate of the old one is dropped, and the new one
    starts from what it holds.
    """

    def __init__(self) -> None:
        self._owners = WeakIdKeyDictionary()

    def check(self, param: Tensor, state: dict[str, Any]) -> None:
        """Drop the base iterate in ``state``, that of ``param``, if it is known to be another parameter's."""
        owner = self._owners.get(state["base"]) if "base" in state else None
        if owner is not None and owner is not param:
            del state["base"]

    def note(self, param: Tensor, state: dict[str, Any]) -> None:
        """Note that the base iterate in ``state`` is that of ``param``."""
        if "base" in state:
            # No weak reference: torch.utils.swap_tensors() refuses tensors that have one.
            self._owners[state["base"]] = param

    def __deepcopy__(self, memo: dict[int, Any]) -> BaseOwners:
        return BaseOwners()  # the copies of the parameters own the copies of their bases

    def __reduce__(self) -> Any:
        return BaseOwners, ()
