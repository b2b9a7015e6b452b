"""The tables of a launch, which lie on the device, and what a program reads of them. Every column is an int64.

The same named tuples serve as a row on the host, where the values are ints, and in a kernel, where it has loaded them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl


class TensorRow(NamedTuple):
    """A tensor: its size in real numbers, and the addresses of this step."""

    numel: Any
    index: Any  # position in the optimizer
    chunks: Any  # number of its rows among the chunks
    step: Any  # of a float32, the count of the steps taken
    y: Any
    base: Any  # that of y where no base is stored
    gradient: Any  # 0: the tensor is skipped in this step
    local: Any  # 0 where this worker's own gradient is the gradient
    aligned: Any  # 1 where all that is read and written starts at a multiple of 16 bytes
    buffers: Any = ()  # of the rule, in its order


# Columns before the buffers, and of a row of the table: one cache line of 128 bytes.
BUFFER_COLUMN = tl.constexpr(len(TensorRow._fields) - 1)
TENSOR_COLUMNS = tl.constexpr(16)
# The most buffers that a rule may have here.
MAX_BUFFERS = TENSOR_COLUMNS.value - BUFFER_COLUMN.value


class NoiseRow(NamedTuple):
    """The noise of a tensor: the rows that it is scaled by, and where a part of a tensor lies in the whole.

    Element ``i`` in memory lies in row ``i // row_stride % rows``, and in the whole tensor at
    ``offset + i // extent * stride + i % extent``.
    """

    first: Any  # position of the first row's rms; -1 for a tensor without noise
    row_stride: Any
    rows: Any
    offset: Any
    extent: Any
    stride: Any


class Chunk(NamedTuple):
    """What one program of the step works on: elements of one tensor."""

    tensor: Any
    begin: Any
    end: Any


class Piece(NamedTuple):
    """What one program of a sum works on: elements ``begin`` to ``end`` of one row of a tensor, counted in the row."""

    tensor: Any
    row: Any
    row_stride: Any  # as in NoiseRow
    rows: Any
    begin: Any
    end: Any
    total: Any  # which sum it is a term of, one of those of the programs `first` to `first + pieces`
    first: Any
    pieces: Any


@triton.jit
def tensor_row(tensors, i, BUFFERS: tl.constexpr):
    """Load row ``i`` with the addresses of ``BUFFERS`` buffers."""
    p = tensors + i * TENSOR_COLUMNS
    buffers = ()
    for k in tl.static_range(BUFFERS):
        buffers += (tl.load(p + BUFFER_COLUMN + k),)  # type: ignore[assignment]
    return TensorRow(
        tl.load(p),
        tl.load(p + 1),
        tl.load(p + 2),
        tl.load(p + 3),
        tl.load(p + 4),
        tl.load(p + 5),
        tl.load(p + 6),
        tl.load(p + 7),
        tl.load(p + 8),
        buffers,
    )


@triton.jit
def noise_row(table, i):
    """Load row ``i``."""
    p = table + i * 6
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
