"""Blocks of 16 numbers in 8 bits each, with a shared exponent. Readable twin of ``csrc/core/formats/block8.h``.

A block is 16 numbers that follow each other in memory. Its exponent ``E`` is that of its largest magnitude, rounded, as
float32 has it, and 12 at least. Magnitudes from ``2**(E - 6 - 127)`` on have an exponent of their own in their code,
smaller ones are fixed-point. Signed buffers have a sign and 4 bits of mantissa. Unsigned buffers store their square
root with 5 bits of mantissa; a root that is not zero has two steps at least. A block with a number that is infinite or
not a number reads as NaN: its exponent is 255, its codes are 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from extrap_kernels.float_bits import bits_of, float_of
from extrap_kernels.layout import in_memory_order, is_dense
from extrap_kernels.shards import Shard, is_dtensor, local_part
from extrap_kernels.state.format import Format

BLOCK = 16
# The least exponent of a block, whose smallest step is still a normal number; and that of a block that is NaN.
SMALLEST, POISONED = 12, 255
# The least code of a root that is not zero. In a signed block with the same exponent, the least number is as large: a
# first moment that is rounded up to it is not divided by less.
LEAST_ROOT = 2
_EXPONENTS = 6  # below that of the block that numbers may have
_MANTISSA = 23  # bits of float32


def takes_blocks(param: Tensor) -> bool:
    """Whether the state of a parameter, by its whole shape, is stored in blocks.

    Not that of a vector or a small matrix, where it would save nothing; nor where a slice along dim 0 would cut a
    block, so that shards may lie anywhere; nor where the memory is in another order than row by row, since a checkpoint
    does not tell that order.
    """
    row_major = not is_dense(param) or param.is_contiguous()
    return row_major and param.dim() > 1 and param.numel() >= 4096 and param.numel() // param.shape[0] % BLOCK == 0


def exponents_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Return the shape of the exponents of a buffer of this shape: those of its rows along dim 0."""
    return shape[0], torch.Size(shape[1:]).numel() // BLOCK


def empty_exponents(param: Tensor) -> Tensor:
    """Return uninitialized exponents for a buffer of ``param``: a DTensor, placed likewise, if that is one."""
    shape = exponents_shape(param.shape)
    if not is_dtensor(param):
        return torch.empty(shape, dtype=torch.uint8, device=param.device)
    from torch.distributed.tensor import DTensor

    local = torch.empty(exponents_shape(local_part(param).shape), dtype=torch.uint8, device=param.device)
    return DTensor.from_local(
        local, param.device_mesh, param.placements, run_check=False, shape=torch.Size(shape), stride=(shape[1], 1)
    )


def check_shard(name: str, param: Tensor, shard: Shard) -> None:
    """Raise ValueError if the local part of a DTensor cuts blocks."""
    across = param.dim() > 2 and len(shard.row_groups) > 0
    numel = local_part(param).numel()
    places = (shard.offset, shard.extent) + ((shard.stride,) if numel > shard.extent else ())
    if across or (numel > 0 and any(place % BLOCK for place in places)):
        raise ValueError(
            f"{name} of shape {tuple(param.shape)} is sharded so that blocks of {BLOCK} numbers would be cut, or along "
            "a dimension after dim 0 of more than two; shard it along dim 0, or put it into a param group with "
            "state_dtype=torch.bfloat16"
        )


@dataclass(frozen=True)
class BlockFormat(Format):
    """See the head of this file.

    Attributes:
        mantissa: bits of the mantissa.
        signed: whether the numbers may be negative; if not, their roots are stored.
        first_bit: place in a random word of the lowest bit that rounds a number.
        bits: how many bits round it.
    """

    dtype: torch.dtype = torch.uint8
    random: bool = True
    mantissa: int = 4
    signed: bool = True
    bits: int = 8

    def decode_blocks(self, codes: Tensor, exponents: Tensor) -> Tensor:
        """Return float32 numbers for codes of shape (blocks, 16) and exponents of shape (blocks, 1), both uint8."""
        c, e = codes.to(torch.int64), exponents.to(torch.int64)
        low = e - _EXPONENTS
        pattern = ((c & 0x7F if self.signed else c) << (_MANTISSA - self.mantissa)) + ((low - 1) << _MANTISSA)
        one = low << _MANTISSA
        value = torch.where(pattern >= one, float_of(pattern), float_of(pattern + (1 << _MANTISSA)) - float_of(one))
        value = torch.where(e == POISONED, torch.nan, value)
        return torch.where(c >= 0x80, -value, value) if self.signed else value * value

    def encode_blocks(self, value: Tensor, random: Optional[Tensor]) -> tuple[Tensor, Tensor]:
        """Return codes and exponents of float32 numbers of shape (blocks, 16).

        Args:
            value: the numbers; not negative, or ``signed``.
            random: a random word for each; None: round to nearest.
        """
        pattern = bits_of(value if self.signed else value.sqrt())
        magnitude = pattern & 0x7FFFFFFF
        cut = _MANTISSA - self.mantissa
        added = torch.full_like(magnitude, 1 << (cut - 1))
        if random is not None:
            chosen = (random >> self.first_bit) & ((1 << self.bits) - 1)
            added = (chosen << (cut - self.bits)) + (1 << (cut - self.bits - 1))
        # Of the numbers as they are rounded: one that is rounded up to a power of two takes its block along.
        e = ((magnitude + added).amax(1, keepdim=True) >> _MANTISSA).clamp(SMALLEST, POISONED)
        low = e - _EXPONENTS
        one = low << _MANTISSA
        fixed_point = bits_of(float_of(magnitude) + float_of(one)) - (1 << _MANTISSA)
        cut_at = torch.where(magnitude < one, fixed_point, magnitude) + added
        code = (cut_at >> cut) - ((low - 1) << self.mantissa)
        if self.signed:
            code = code | (pattern >> 31 << 7)
        else:
            code = torch.maximum(code, LEAST_ROOT * (magnitude != 0).to(torch.int64))
        return torch.where(e == POISONED, 0, code).to(torch.uint8), e.to(torch.uint8)

    def decode(self, stored: Tensor, arithmetic: torch.dtype, beside: Optional[Tensor] = None) -> Tensor:
        """Return the stored numbers in float32, in a tensor like ``stored``; ``beside``: the exponents."""
        assert beside is not None
        value = torch.empty_like(stored, dtype=torch.float32)
        codes = in_memory_order(stored).view(-1, BLOCK)
        in_memory_order(value).copy_(self.decode_blocks(codes, beside.reshape(-1, 1)).view(-1))
        return value

    def store(self, stored: Tensor, value: Tensor, random: Optional[Tensor], beside: Optional[Tensor] = None) -> None:
        """Write ``value`` into ``stored`` and the exponents ``beside``; ``random``: words, None: to nearest."""
        assert beside is not None
        numbers = in_memory_order(_like(stored, value.to(torch.float32))).view(-1, BLOCK)
        words = None if random is None else in_memory_order(_like(stored, random)).view(-1, BLOCK)
        codes, e = self.encode_blocks(numbers, words)
        in_memory_order(stored).copy_(codes.view(-1))
        beside.copy_(e.view(beside.shape))


def _like(layout: Tensor, values: Tensor) -> Tensor:
    """Return ``values`` with the strides of ``layout``."""
    return torch.empty_like(layout, dtype=values.dtype).copy_(values)
