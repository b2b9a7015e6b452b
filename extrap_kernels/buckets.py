"""Buckets of parameters that are stepped together, in the order in which backward reaches them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Place = tuple[int, int, Tensor]  # number of the group, position in it, parameter


@dataclass(frozen=True, eq=False)
class Bucket:
    """Parameters of one group."""

    number: int
    positions: tuple[int, ...]
    params: tuple[Tensor, ...]

    @classmethod
    def of(cls, number: int, members: list[tuple[int, Tensor]]) -> Bucket:
        """Make a bucket of positions in group ``number`` and the parameters there."""
        positions, params = zip(*sorted(members, key=lambda member: member[0]))
        return cls(number, positions, params)

    def is_current(self, groups: Sequence[dict[str, Any]]) -> bool:
        """Whether the parameters are still at their places in the optimizer."""
        params = groups[self.number]["params"] if self.number < len(groups) else []
        return all([i < len(params) and params[i] is param for i, param in zip(self.positions, self.params)])


def cut(places: Sequence[Place], nbytes: int) -> list[Bucket]:
    """Cut the parameters of each group, device and dtype into buckets; backward reaches the last ones first.

    Args:
        places: of the parameters.
        nbytes: of the parameters of a bucket, at most, unless one alone has more.
    """
    cuts: dict[Any, list[list[tuple[int, Tensor]]]] = defaultdict(lambda: [[]])
    filled: dict[Any, int] = defaultdict(int)
    for number, i, param in reversed(places):
        key = number, param.device, param.dtype
        if cuts[key][-1] and filled[key] + param.nbytes > nbytes:
            cuts[key].append([])
            filled[key] = 0
        cuts[key][-1].append((i, param))
        filled[key] += param.nbytes
    return [Bucket.of(key[0], members) for key in cuts for members in cuts[key]]


def places_of(groups: Sequence[dict[str, Any]], params: Iterable[Tensor]) -> list[Place]:
    """Return the places of those of ``params`` that the param groups have."""
    wanted = set(params)
    return [
        (number, i, param)
        for number, group in enumerate(groups)
        for i, param in enumerate(group["params"])
        if param in wanted
    ]
