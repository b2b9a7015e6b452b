"""Philox4x32-10 (Salmon et al., SC 2011). Twin: ``csrc/core/philox.h``."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def philox4x32(c0, c1, c2, c3, k0, k1):
    """Return the four words of each counter; all arguments and results are uint32."""
    M0: tl.constexpr = 0xD2511F53
    M1: tl.constexpr = 0xCD9E8D57
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, c0 * 0 + M0), c0 * M0
        high1, low1 = tl.umulhi(c2, c2 * 0 + M1), c2 * M1
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    return c0, c1, c2, c3
