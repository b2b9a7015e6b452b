"""The bits of float32 numbers as integers."""

from __future__ import annotations

import torch
from torch import Tensor


def float_of(bits: Tensor) -> Tensor:
    """Return the float32 numbers with these bits, integers of any dtype that has room for them."""
    return bits.to(torch.int32).view(torch.float32)


def bits_of(value: Tensor) -> Tensor:
    """Return the bits of float32 numbers, int64 in [0, 2**32)."""
    return value.view(torch.int32).to(torch.int64) & 0xFFFFFFFF
