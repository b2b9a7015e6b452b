"""The square root as the kernels take it: rounded to nearest."""

from __future__ import annotations

import torch
from torch import Tensor

_LOW_HALF = (1 << 27) - 1


def square_root(v: Tensor) -> Tensor:
    """Return the square root of float32 or float64 numbers that are not negative, rounded to nearest.

    torch's own is one unit off in some elements, where a vector library computes it. Through double precision that of
    a float is right; that of a double is corrected by what its square leaves, which two halves of 26 bits give without
    rounding (Dekker 1971).
    """
    if v.dtype == torch.float32:
        return v.double().sqrt().float()
    tiny = v < 2.0**-900  # squares would underflow
    scaled = torch.where(tiny, v * 2.0**120, v)
    root = scaled.sqrt()
    head = (root.view(torch.int64) & ~_LOW_HALF).view(torch.float64)
    tail = root - head
    left = ((scaled - head * head) - 2 * (head * tail)) - tail * tail
    corrected = root + left / (2 * root)
    root = torch.where(corrected.isfinite(), corrected, root)  # not 0 and infinity
    return torch.where(tiny, root * 2.0**-60, root)
