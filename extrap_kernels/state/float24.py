"""Float32 numbers in 24 bits, in two tensors: readable twin of ``csrc/core/formats/float24.h``. For the base iterate.

Of the pattern of a number, the last 8 bits are rounded off. ``base`` has its upper half as a bfloat16, rounded with
ties away from zero. ``base_low`` has the byte below, which has a sign: added back, it undoes that rounding. So ``base``
alone is ``x`` to the precision of bfloat16, and both together have 15 bits behind the leading one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor

from extrap_kernels.float_bits import bits_of, float_of
from extrap_kernels.layout import empty_dense
from extrap_kernels.shards import local_part
from extrap_kernels.state.format import Format

# In the state, beside "base" where that is bfloat16: its low bytes, uint8.
BASE_LOW = "base_low"
_CUT, _KEPT = 0xFF, 0xFFFFFF00  # the bits that are rounded off, and the others
_NAN = 0x7FC00000


@dataclass(frozen=True)
class SplitFormat(Format):
    """See the head of this file; all bits are int64."""

    dtype: torch.dtype = torch.bfloat16
    random: bool = True
    first_bit: int = 0

    def rounded(self, value: Tensor, random: Optional[Tensor]) -> Tensor:
        """Return what is kept of float32 numbers, in float32.

        Args:
            value: the numbers.
            random: a word for each, whose lowest 8 bits round up with the probability of what is cut off; None: to
                nearest, ties away from zero.
        """
        added = _CUT // 2 + 1 if random is None else random & _CUT
        # Infinity stays what it is: there is nothing in its last bits to be carried.
        kept = (bits_of(value) + added) & 0xFFFFFFFF & _KEPT
        return float_of(torch.where(value.isnan(), _NAN, kept))

    def decode(self, stored: Tensor, arithmetic: torch.dtype, beside: Optional[Tensor] = None) -> Tensor:
        """Return the stored numbers in float32; ``beside``: their low bytes."""
        assert beside is not None
        return float_of(
            (stored.view(torch.int16).to(torch.int64) << 16) + (beside.view(torch.int8).to(torch.int64) << 8)
        )

    def store(self, stored: Tensor, value: Tensor, random: Optional[Tensor], beside: Optional[Tensor] = None) -> None:
        """Write ``value``, float32, into ``stored`` and the low bytes ``beside``; ``random``: see :meth:`rounded`."""
        assert beside is not None
        bits = bits_of(self.rounded(value, random))
        stored.copy_(((bits + 0x8000) >> 16).to(torch.int16).view(torch.bfloat16))
        beside.copy_((bits >> 8).to(torch.uint8))


SPLIT = SplitFormat()


def is_split(state: Mapping[str, Any]) -> bool:
    """Whether the base iterate that is stored in ``state`` has 24 bits."""
    return state["base"].dtype == SPLIT.dtype


def stored_base(state: Mapping[str, Any]) -> Tensor:
    """Return the base iterate that is stored in ``state``: its tensor, or a float32 copy of one in two tensors.

    Raises:
        ValueError: one of the two is missing.
    """
    base: Tensor = state["base"]
    if not is_split(state):
        return base
    if BASE_LOW not in state:
        raise ValueError(
            f"the state of a parameter of shape {tuple(base.shape)} has a bfloat16 'base' and lacks {BASE_LOW!r}, the "
            "low bytes of it; load a whole checkpoint, or put the base iterate there in float32"
        )
    whole = empty_dense(base, torch.float32)
    local_part(whole).copy_(SPLIT.decode(local_part(base), torch.float32, local_part(state[BASE_LOW])))
    return whole


def write_base(state: Mapping[str, Any], value: Tensor) -> None:
    """Write ``value`` into the base iterate that is stored in ``state``, rounded to nearest where that has 24 bits."""
    base = state["base"]
    if not is_split(state):
        if value is not base:
            base.copy_(value)
        return
    whole = empty_dense(base, torch.float32).copy_(value)
    SPLIT.store(local_part(base), local_part(whole), None, local_part(state[BASE_LOW]))
