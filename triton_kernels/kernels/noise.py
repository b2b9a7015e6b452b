"""The noise of the elements of a tensor, or of a part of one: its positions and what it is scaled by."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from extrap_kernels.triton_kernels.kernels.random_bits import (
    ROUNDING_STREAM,
    random_bits,
    random_key,
)
from extrap_kernels.triton_kernels.kernels.scalars import code, number, slot, whole_number

KEY, SEED, NOISE_STD, NOISE_SCALE = slot("key"), slot("seed"), slot("noise_std"), slot("noise_scale")
BY_TENSOR, BY_FILTER = code("noise_scale", "tensor"), code("noise_scale", "filter")
BY_GRADIENT = code("noise_scale", "gradient")


class Noise(NamedTuple):
    """The noise of a tensor. Scalars are read in each tile: between them they would only take registers."""

    scalars: Any
    key: Any  # of the stream of the noise, and of that which rounds the state: two words each
    rounding_key: Any
    place: Any
    rms: Any


@triton.jit
def noise_of(scalars, count, place, rms):
    """Return the noise of a tensor in the step that makes its count ``count``."""
    key = random_key(whole_number(scalars, KEY), place.index, count)
    rounding_key = random_key(whole_number(scalars, SEED), place.index | ROUNDING_STREAM, count)
    return Noise(scalars, key, rounding_key, place, rms)


@triton.jit
def extents_ended(start, extent, o):
    """Return how many more extents end before element ``start + o`` than before ``start``, int32.

    Without a 64-bit division for each element. The offsets ``o`` are those of a block.
    """
    # Where extents are longer than any int32, only the distance to the next one matters.
    excess = tl.maximum(extent - (1 << 30), 0)
    into = tl.maximum(start % extent - excess, 0).to(tl.int32)
    return (into + o) // (extent - excess).to(tl.int32)


@triton.jit
def row_rms(noise, start, BLOCK: tl.constexpr):
    """Return the float64 rms of the row of each element from position ``start``."""
    stride, rows = noise.place.row_stride, noise.place.rows
    row = ((start // stride) % rows).to(tl.int32) + extents_ended(start, stride, tl.arange(0, BLOCK))
    return tl.load(noise.rms + noise.place.first + row % rows.to(tl.int32))


@triton.jit
def positions(place, start, o):
    """Return the positions in the whole tensor of the elements ``start + o`` of a part of it, int64."""
    first = place.offset + start // place.extent * place.stride + start % place.extent
    return first + o + extents_ended(start, place.extent, o) * (place.stride - place.extent)


@triton.jit
def numbers(noise, start, PAIR: tl.constexpr, SHARDED: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):
    """Return the float32 noise of ``BLOCK`` elements from ``start``, before it is scaled.

    Each two elements share a word. Where they are ``ALIGNED``, a thread makes both numbers of it; otherwise it has one
    element, and makes them for that alone, as passing one on to another thread would take longer.
    """
    first, second = noise.key
    if ALIGNED:
        pair = (start >> 1) + tl.arange(0, BLOCK // 2)
        if SHARDED:
            pair = positions(noise.place, start, tl.arange(0, BLOCK // 2) * 2) >> 1
        even, odd = PAIR(random_bits(first, second, pair))
        n = tl.join(even, odd).reshape(BLOCK)
    else:
        at = start + tl.arange(0, BLOCK)
        if SHARDED:
            at = positions(noise.place, start, tl.arange(0, BLOCK))
        even, odd = PAIR(random_bits(first, second, at >> 1))
        n = tl.where(at & 1 != 0, odd, even)
    return n


@triton.jit
def rounding_bits(noise, start, SHARDED: tl.constexpr, BLOCK: tl.constexpr):
    """Return 32 bits for each of ``BLOCK`` elements from ``start`` that round its state; they are not its noise's."""
    first, second = noise.rounding_key
    if SHARDED:
        at = positions(noise.place, start, tl.arange(0, BLOCK))
    else:
        at = start + tl.arange(0, BLOCK)
    return random_bits(first, second, at)


@triton.jit
def with_noise(
    noise, y, l, start, PAIR: tl.constexpr, SHARDED: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr
):
    """Return ``y`` with its noise."""
    n = numbers(noise, start, PAIR, SHARDED, BLOCK, ALIGNED).to(y.dtype)
    std, scale = number(noise.scalars, NOISE_STD).to(y.dtype), whole_number(noise.scalars, NOISE_SCALE)
    amplitude = tl.zeros_like(y) + std
    if scale == BY_GRADIENT:
        amplitude = tl.abs(l) * std
    if (scale == BY_TENSOR) | (scale == BY_FILTER):
        amplitude = row_rms(noise, start, BLOCK).to(y.dtype) * std
    return y + n * amplitude
