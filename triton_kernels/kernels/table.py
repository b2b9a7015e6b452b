"""The tables of a launch, which lie on the device, and what a program reads of them.

Every column is an int64, but those of the chunks, of which there are most, are int32.

The same named tuples serve as a row on the host, where the values are ints, and in a kernel, where it has loaded them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

# What is accessed wide starts and ends at multiples of this many elements; those left over are a chunk of their own.
VECTOR = tl.constexpr(4)


class TensorRow(NamedTuple):
    """A tensor: its size in real numbers, and the addresses of this step."""

    numel: Any
    chunks: Any  # number of its rows among the chunks
    step: Any  # of a float32, the count of the steps taken
    inner_lr: Any  # of a number of the arithmetic, by which x is recovered from y; 0: it is not
    y: Any
    base: Any  # that of y where no base is stored
    base_low: Any  # of the low bytes of x where it is split; else 0
    gradient: Any  # 0: the tensor is skipped in this step
    local: Any  # 0 where this worker's own gradient is the gradient
    aligned: Any  # 1 where all that is read and written starts at a multiple of 16 bytes
    buffers: Any = ()  # of the rule, in its order
    exponents: Any = ()  # of each of them, if they are in blocks


# The most buffers that a rule may have here.
MAX_BUFFERS = 2
# Columns before the buffers, before their exponents, and of a row of the table.
BUFFER_COLUMN = tl.constexpr(len(TensorRow._fields) - 2)
EXPONENT_COLUMN = tl.constexpr(BUFFER_COLUMN.value + MAX_BUFFERS)
TENSOR_COLUMNS = tl.constexpr(EXPONENT_COLUMN.value + MAX_BUFFERS)


class NoiseRow(NamedTuple):
    """The noise of a tensor: its stream, the rows that it is scaled by, and where a part lies in the whole tensor.

    Element ``i`` in memory lies in row ``i // row_stride % rows``, and in the whole tensor at
    ``offset + i // extent * stride + i % extent``.
    """

    index: Any  # position of the tensor in the optimizer
    first: Any  # position of the first row's rms; -1 for a tensor without noise
    row_stride: Any
    rows: Any
    offset: Any
    extent: Any
    stride: Any


class Chunk(NamedTuple):
    """What one program of the step works on: a part of a tensor, see :func:`span_of`."""

    tensor: Any
    part: Any


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


NOISE_COLUMNS, CHUNK_COLUMNS, PIECE_COLUMNS = (tl.constexpr(len(row._fields)) for row in (NoiseRow, Chunk, Piece))


@triton.jit
def cells(p, COUNT: tl.constexpr):
    """Load ``COUNT`` cells from ``p`` on."""
    values = ()
    for k in tl.static_range(COUNT):
        values += (tl.load(p + k),)  # type: ignore[assignment]
    return values


@triton.jit
def tensor_row(tensors, i, BUFFERS: tl.constexpr):
    """Load row ``i`` with the addresses of ``BUFFERS`` buffers."""
    p = tensors + i * TENSOR_COLUMNS
    buffers, exponents = cells(p + BUFFER_COLUMN, BUFFERS), cells(p + EXPONENT_COLUMN, BUFFERS)
    return TensorRow(*cells(p, BUFFER_COLUMN), buffers, exponents)  # type: ignore[call-arg]


@triton.jit
def noise_row(table, i):
    """Load row ``i``."""
    return NoiseRow(*cells(table + i * NOISE_COLUMNS, NOISE_COLUMNS))


@triton.jit
def chunk_row(chunks, i):
    """Load row ``i``."""
    return Chunk(*cells(chunks + i * CHUNK_COLUMNS, CHUNK_COLUMNS))


@triton.jit
def piece_row(pieces, i):
    """Load row ``i``."""
    return Piece(*cells(pieces + i * PIECE_COLUMNS, PIECE_COLUMNS))


@triton.jit
def span_of(part, numel, length):
    """Return begin and end of a part: ``length`` elements, the rest of the vectors, or at last what is left over."""
    whole = numel - numel % VECTOR
    begin = tl.minimum(part.to(tl.int64) * length, whole)
    return begin, tl.where(begin < whole, tl.minimum(begin + length, whole), numel)


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
