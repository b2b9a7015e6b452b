"""The scalars of a launch as kernels read them: a row of 8-byte slots on the device, in int64.

The slots are those of :data:`extrap_kernels.scalars.SCALARS`. After them, each scalar that may live on the device has
two more: its address there, or 0 where the row has its value, and whether it is a float64, not a float32.
"""

from __future__ import annotations

from typing import Optional

import triton
import triton.language as tl

from extrap_kernels.options import CODES
from extrap_kernels.scalars import ON_DEVICE, SCALARS

# Those with an address, in order; found_inf has no other slot.
ADDRESSED = (*ON_DEVICE, "found_inf")
SLOTS = len(SCALARS) + 2 * len(ADDRESSED)


def slot(name: str) -> tl.constexpr:
    """Return the slot of a scalar, for a module-level name: Triton's cache then knows a kernel by it, too."""
    return tl.constexpr([scalar.name for scalar in SCALARS].index(name))


def address_slot(name: str) -> tl.constexpr:
    """Return the slot of a scalar's address."""
    return tl.constexpr(len(SCALARS) + 2 * ADDRESSED.index(name))


def code(option: str, name: Optional[str]) -> tl.constexpr:
    """Return the number that stands for a choice of an option."""
    return tl.constexpr(CODES[option].index(name))


FOUND_INF_AT = address_slot("found_inf")


@triton.jit
def number(scalars, SLOT: tl.constexpr):
    """Return a float64 of the row."""
    return tl.load(scalars + SLOT).to(tl.float64, bitcast=True)


@triton.jit
def whole_number(scalars, SLOT: tl.constexpr):
    """Return an integer of the row: a flag, a code, or the bits of a uint64."""
    return tl.load(scalars + SLOT)


@triton.jit
def number_at(address, is_double):
    """Return a number on the device as float64."""
    if is_double:
        value = tl.load(address.to(tl.pointer_type(tl.float64)))
    else:
        value = tl.load(address.to(tl.pointer_type(tl.float32))).to(tl.float64)
    return value


@triton.jit
def device_number(scalars, SLOT: tl.constexpr, ADDRESS_SLOT: tl.constexpr):
    """Return a float64 that is in the row or on the device."""
    value = number(scalars, SLOT)
    address = tl.load(scalars + ADDRESS_SLOT)
    if address != 0:
        value = number_at(address, tl.load(scalars + ADDRESS_SLOT + 1) != 0)
    return value


@triton.jit
def is_skipped(scalars):
    """Whether GradScaler found infinite or undefined gradients."""
    found = tl.full((), 0.0, tl.float64)
    address = tl.load(scalars + FOUND_INF_AT)
    if address != 0:
        found = number_at(address, tl.load(scalars + FOUND_INF_AT + 1) != 0)
    return found != 0
