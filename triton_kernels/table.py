"""The tables of a launch, which lie on the device, and what a program reads of them. Every column is an int64.

The same named tuples serve as a row on the host, where the values are ints, and in a kernel, where it has loaded them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl


class TensorRow(NamedTuple):
    """A tensor: its size in real numbers, and addresses that last as long as the plan."""

    numel: Any
    y: Any
    base: Any
    m: Any  # buffers of the rule, 0 where it has none
    v: Any
    step: Any  # of a float32, the count of the steps taken
    index: Any  # position in the optimizer
    chunks: Any  # number of its rows among the chunks


class GradientRow(NamedTuple):
    """The gradients of a tensor in this step."""

    gradient: Any
    local: Any  # 0 where this worker's own gradient is the gradient
    aligned: Any  # 1 where everything that is read and written of the tensor starts at a multiple of 16 bytes


class NoiseRow(NamedTuple):
    """The noise of a tensor: the rows that it is scaled by, and where a part of a tensor lies in the whole.

    Element ``i`` in memory lies in row ``i // stride % count``, and in the whole tensor at
    ``offset + i // run * pitch + i % run``.
    """

    first: Any  # position of the first row's rms; -1 for a tensor without noise
    stride: Any
    count: Any
    offset: Any
    run: Any
    pitch: Any


class Chunk(NamedTuple):
    """What one program of the step works on: elements of one tensor."""

    tensor: Any
    begin: Any
    end: Any


class Piece(NamedTuple):
    """What one program of a sum works on: elements ``begin`` to ``end`` of one row of a tensor, counted in the row."""

    tensor: Any
    row: Any
    stride: Any  # of the rows, as in NoiseRow
    count: Any
    begin: Any
    end: Any
    group: Any  # what it is summed up with: the programs `first` to `first + pieces`
    first: Any
    pieces: Any


@triton.jit
def tensor_row(tensors, i):
    """Load row ``i``."""
    p = tensors + i * 8
    return TensorRow(
        tl.load(p),
        tl.load(p + 1),
        tl.load(p + 2),
        tl.load(p + 3),
        tl.load(p + 4),
        tl.load(p + 5),
        tl.load(p + 6),
        tl.load(p + 7),
    )


@triton.jit
def gradient_row(gradients, i):
    """Load row ``i``."""
    p = gradients + i * 3
    return GradientRow(tl.load(p), tl.load(p + 1), tl.load(p + 2))


@triton.jit
def noise_row(rows, i):
    """Load row ``i``."""
    p = rows + i * 6
    return NoiseRow(tl.load(p), tl.load(p + 1), tl.load(p + 2), tl.load(p + 3), tl.load(p + 4), tl.load(p + 5))


@triton.jit
def chunk_row(chunks, i):
    """Load row ``i``."""
    p = chunks + i * 3
    return Chunk(tl.load(p), tl.load(p + 1), tl.load(p + 2))


@triton.jit
def piece_row(pieces, i):
    """Load row ``i``."""
    p = pieces + i * 9
    return Piece(
        tl.load(p),
        tl.load(p + 1),
        tl.load(p + 2),
        tl.load(p + 3),
        tl.load(p + 4),
        tl.load(p + 5),
        tl.load(p + 6),
        tl.load(p + 7),
        tl.load(p + 8),
    )


@triton.jit
def is_last(counter, count):
    """Whether this program is the last of ``count`` to come here; what the others wrote before is visible then.

    The counter, an int32 that starts at 0, is left at 0. It decides only who does something, never what: the result
    does not depend on the order of the programs.
    """
    # Until every thread of this program has made its loads and stores, none may announce that it has.
    tl.debug_barrier()
    last = tl.atomic_add(counter, 1) == count - 1
    if last:
        tl.store(counter, 0)
    tl.debug_barrier()
    return last
