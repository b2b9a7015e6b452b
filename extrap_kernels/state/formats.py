"""Formats of state tensors: how numbers are stored. Readable twin of ``csrc/core/formats``.

A new format is an entry in :data:`STATE_FORMATS`, its twins in ``csrc/core/formats`` and ``triton_kernels``, and the
line of ``csrc/core/formats.h``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from extrap_kernels.state.blocks import BlockFormat
from extrap_kernels.state.format import Format


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

    def of(self, *, signed: bool) -> Format:
        """Return the format of a buffer of this sign."""
        return self.signed if signed else self.unsigned


# By ``state_dtype``. float32 means the dtype of the arithmetic, which is double for double parameters.
STATE_FORMATS: dict[torch.dtype, Optional[StateFormat]] = {
    torch.float32: None,
    torch.bfloat16: StateFormat(Format(torch.bfloat16), Format(torch.bfloat16, bfloat16_stochastic, random=True)),
    torch.uint8: StateFormat(
        BlockFormat(mantissa=4, signed=True, first_bit=8, bits=8),
        BlockFormat(mantissa=5, signed=False, first_bit=16, bits=16),
    ),
}
