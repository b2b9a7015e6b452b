"""Reads the state of every parameter of an optimizer, where there is no native module."""

from __future__ import annotations

from typing import Any, Optional

from torch import Tensor


def _params(param_groups: list[dict[str, Any]]) -> list[Any]:
    """Return all parameters, and None at the end of each group."""
    params: list[Any] = []
    for group in param_groups:
        params += [*group["params"], None]
    return params


def _are(objects: list[Any], others: list[Any]) -> bool:
    return len(objects) == len(others) and all([a is b for a, b in zip(objects, others)])


class StateReader:
    """Reads the state anew in each step and keeps nothing of it in between.

    Twin: ``csrc/state_reader.cpp``.
    """

    def __init__(self, state: dict[Tensor, Any], param_groups: list[dict[str, Any]]) -> None:
        # Kept, so that no other object can get the identity of one of them.
        self._params, self._keys = _params(param_groups), list(state)

    def read(self, state: dict[Tensor, Any], param_groups: list[dict[str, Any]]) -> Optional[list[Any]]:
        """Return the state of each parameter in the order of the groups, None where there is none.

        Returns None in place of the list if the groups, or the keys of ``state``, are no longer the objects they were,
        in the same order.
        """
        if not _are(_params(param_groups), self._params) or not _are(list(state), self._keys):
            return None
        return [state.get(param) for group in param_groups for param in group["params"]]
