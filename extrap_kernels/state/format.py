"""A format: how the numbers of one state tensor are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Optional

import torch
from torch import Tensor

Encoder = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Format:
    """How the numbers of one state tensor are stored.

    Attributes:
        dtype: dtype of the stored tensor.
        encode: function from numbers, and 16 random bits for each (int32 in [0, 2**16)), to the stored tensor. None:
            round to nearest even.
        random: whether random bits round the numbers.
        first_bit: place in a random word of the lowest bit that does.
    """

    dtype: torch.dtype
    encode: Optional[Encoder] = None
    random: bool = False
    first_bit: int = 16

    def decode(self, stored: Tensor, arithmetic: torch.dtype, beside: Optional[Tensor] = None) -> Tensor:
        """Return the stored numbers in the dtype of the arithmetic; this is exact. ``beside``: as in :meth:`store`."""
        return stored.to(arithmetic)

    def store(self, stored: Tensor, value: Tensor, random: Optional[Tensor], beside: Optional[Tensor] = None) -> None:
        """Write ``value`` into ``stored``.

        Args:
            stored: changed in place.
            value: the numbers.
            random: a word of 32 random bits for each, int64; None: round to nearest.
            beside: the second tensor of formats that have one, changed in place: exponents of blocks, low bytes.
        """
        if self.encode is None or random is None:
            stored.copy_(value)
        else:
            stored.copy_(self.encode(value, (random >> self.first_bit).to(torch.int32)))
