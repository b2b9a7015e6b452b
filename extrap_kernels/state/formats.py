"""Formats of state tensors: how numbers are stored. Readable twin of ``csrc/core/formats``.

A new format is an entry in :data:`STATE_FORMATS`, its twins in ``csrc/core/formats`` and ``triton_kernels``, and the
line of ``csrc/core/formats.h``.
"""

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
        random: whether ``encode`` uses its random bits.
    """

    dtype: torch.dtype
    encode: Optional[Encoder] = None
    random: bool = False

    def decode(self, stored: Tensor, arithmetic: torch.dtype) -> Tensor:
        """Return the stored numbers in the dtype of the arithmetic; this is exact."""
        return stored.to(arithmetic)

    def store(self, stored: Tensor, value: Tensor, bits: Optional[Tensor]) -> None:
        """Write ``value`` into ``stored``; ``bits`` as in ``encode``, None for a format without randomness."""
        if self.encode is None or bits is None:
            stored.copy_(value)
        else:
            stored.copy_(self.encode(value, bits))


def bfloat16_stochastic(value: Tensor, bits: Tensor) -> Tensor:
    """Round float32 numbers stochastically to bfloat16, away from zero with the probability of the discarded fraction.

    Rounded to nearest, a moving average stops as soon as its change is less than half the distance between two numbers.
    Rounded stochastically, it follows on average.
    """
    pattern = value.view(torch.int32)
    # Infinity stays what it is: there is nothing below its upper half to be carried.
    rounded = (pattern + bits) & ~0xFFFF
    return torch.where(value.isnan(), torch.nan, rounded.view(torch.float32)).to(torch.bfloat16)


@dataclass(frozen=True)
class StateFormat:
    """The formats that a ``state_dtype`` stands for.

    Attributes:
        signed: format of buffers that may be negative.
        unsigned: format of the others, such as second moments.
    """

    signed: Format
    unsigned: Format


# By ``state_dtype``. float32 means the dtype of the arithmetic, which is double for double parameters.
STATE_FORMATS: dict[torch.dtype, Optional[StateFormat]] = {
    torch.float32: None,
    torch.bfloat16: StateFormat(Format(torch.bfloat16), Format(torch.bfloat16, bfloat16_stochastic, random=True)),
}
