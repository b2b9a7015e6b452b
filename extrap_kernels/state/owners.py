"""Whose base iterate a tensor is, and whether that parameter holds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from extrap_kernels.state.float24 import BASE_LOW, stored_base, write_base
from extrap_kernels.state.recovery import INNER_LR


class _Owner(NamedTuple):
    # No weak reference: torch.utils.swap_tensors() refuses tensors that have one.
    param: Tensor
    holds_base: bool


class BaseOwners:
    """Remembers of each base iterate which parameter it belongs to, and whether that holds it between steps.

    A parameter that holds its base iterate, rounded, may be changed between steps: what it holds then is the new base
    iterate. Otherwise it holds the extrapolated point.

    Code that puts a new ``Parameter`` into a group and carries the old one's state over, as Gaussian Splatting does to
    prune and to reset, means the values of the new one: the base iterate of the old one is dropped, and the new one
    starts from what it holds.
    """

    def __init__(self) -> None:
        self._owners = WeakIdKeyDictionary()

    def _owner(self, state: Mapping[str, Any]) -> _Owner | None:
        mark = _mark_of(state)
        owner: _Owner | None = None if mark is None else self._owners.get(state[mark])
        return owner

    def drop_foreign(self, param: Tensor, state: dict[str, Any]) -> None:
        """Drop the base iterate in ``state``, that of ``param``, if it is known to be another parameter's."""
        owner, mark = self._owner(state), _mark_of(state)
        if mark is not None and owner is not None and owner.param is not param:
            del state[mark]
            state.pop(BASE_LOW, None)

    def note(self, param: Tensor, state: dict[str, Any], *, holds_base: bool) -> None:
        """Note that the base iterate in ``state`` is that of ``param``, and whether ``param`` holds it from now on.

        If it held the extrapolated point before, the base iterate is put into it.
        """
        mark = _mark_of(state)
        if mark is None:
            return
        before = self._owner(state)
        if "base" in state and holds_base and before is not None and not before.holds_base:
            param.copy_(stored_base(state))
        self._owners[state[mark]] = _Owner(param, holds_base)

    def holds_base(self, state: Mapping[str, Any]) -> bool:
        """Whether what the parameter of ``state`` is changed to counts: no base is stored, or it should hold it."""
        owner = self._owner(state)
        return "base" not in state or (owner is not None and owner.holds_base)

    def adopt(self, param: Tensor, state: Mapping[str, Any]) -> None:
        """Make what ``param`` holds the base iterate where it is not that, rounded, but should be."""
        if "base" in state and self.holds_base(state):
            adopt_into(state, param)

    def __deepcopy__(self, memo: dict[int, Any]) -> BaseOwners:
        return BaseOwners()  # the copies of the parameters own the copies of their bases

    def __reduce__(self) -> Any:
        return BaseOwners, ()


def _mark_of(state: Mapping[str, Any]) -> str | None:
    """Return the name of the tensor in ``state`` that tells where the base iterate is; None: the parameter holds it."""
    return next((name for name in ("base", INNER_LR) if name in state), None)


def adopt_into(state: Mapping[str, Any], param: Tensor) -> Tensor:
    """Do that of :func:`adopt` to the base iterate that is stored in ``state``."""
    base = stored_base(state)
    changed = adopt(base, param)
    write_base(state, base)
    return changed


def adopt(base: Tensor, param: Tensor) -> Tensor:
    """Set ``base = param``, except where the parameter holds exactly the rounded base iterate.

    Returns:
        Where they differed, as a bool tensor.
    """
    held = param.to(base.dtype)
    changed = held != base.to(param.dtype).to(base.dtype)
    base.copy_(torch.where(changed, held, base))
    return changed
