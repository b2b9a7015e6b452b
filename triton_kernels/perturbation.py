"""The noise of the elements of a tensor, or of a part of one: its positions and what it is scaled by."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl
from extrap_kernels.triton_kernels.philox import noise_at, noise_of_counters


class Perturbation(NamedTuple):
    """The noise of a tensor: its stream, and what it is multiplied by."""

    present: Any
    key: Any
    index: Any
    count: Any
    std: Any
    by_gradient: Any
    by_row: Any
    row: Any
    rms: Any


@triton.jit
def runs_ended(start, run, o):
    """Return how many more runs of length ``run`` end before element ``start + o`` than before ``start``, int32.

    Without a 64-bit division for each element. The offsets ``o`` are those of a block.
    """
    # Where runs are longer than any int32, only the distance to the next one matters.
    excess = tl.maximum(run - (1 << 30), 0)
    into_run = tl.maximum(start % run - excess, 0).to(tl.int32)
    return (into_run + o) // (run - excess).to(tl.int32)


@triton.jit
def row_rms(noisy, start, BLOCK: tl.constexpr):
    """Return the float64 rms of the row of each element from position ``start``."""
    stride, rows = noisy.row.stride, noisy.row.count
    row = ((start // stride) % rows).to(tl.int32) + runs_ended(start, stride, tl.arange(0, BLOCK))
    return tl.load(noisy.rms + noisy.row.first + row % rows.to(tl.int32))


@triton.jit
def positions(row, start, o):
    """Return the positions in the whole tensor of the elements ``start + o`` of a part of it, int64."""
    first = row.offset + start // row.run * row.pitch + start % row.run
    return first + o + runs_ended(start, row.run, o) * (row.pitch - row.run)


@triton.jit
def noise(noisy, start, BLOCK: tl.constexpr, GAUSSIAN: tl.constexpr, SHARDED: tl.constexpr, ALIGNED: tl.constexpr):
    """Return the float32 noise of ``BLOCK`` elements from ``start``, a multiple of 4.

    Each four elements share a counter, but for those of shards that are not ``ALIGNED``.
    """
    if SHARDED and not ALIGNED:
        at = positions(noisy.row, start, tl.arange(0, BLOCK))
        n = noise_at(noisy.key, noisy.index, noisy.count, at, GAUSSIAN)
    else:
        if SHARDED:
            counter = positions(noisy.row, start, tl.arange(0, BLOCK // 4) * 4) >> 2
        else:
            counter = (start >> 2) + tl.arange(0, BLOCK // 4)
        n = noise_of_counters(noisy.key, noisy.index, noisy.count, counter, BLOCK, GAUSSIAN)
    return n


@triton.jit
def perturbed(
    noisy, y, l, start, BLOCK: tl.constexpr, GAUSSIAN: tl.constexpr, SHARDED: tl.constexpr, ALIGNED: tl.constexpr
):
    """Return ``y`` with its noise."""
    n = noise(noisy, start, BLOCK, GAUSSIAN, SHARDED, ALIGNED).to(y.dtype)
    amplitude = tl.zeros_like(y) + noisy.std
    if noisy.by_gradient:
        amplitude = tl.abs(l) * noisy.std
    if noisy.by_row:
        amplitude = row_rms(noisy, start, BLOCK).to(y.dtype) * noisy.std
    return y + n * amplitude
