"""Tensors of more than 2^31 and 2^34 elements, in little memory.

Their address range maps one small ring of pages over and over. With a gradient of zero and x = 0 every element is x = 0
and y = the noise of its position, and the ring is left with what was written last: the noise of the highest positions.
"""

import ctypes
import mmap
import os

import helpers
import numpy as np
import oracle
import pytest
import torch

from extrap_kernels import _C, ExtrapSGD

RING = 3 << 20  # bytes; no divisor of 2^32, so that an offset cut to 32 bits ends up elsewhere in the ring
NOISE = {"seed": 5, "noise": "uniform", "noise_std": 1.0}

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_longlong]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
MAP_FIXED = 0x10


@pytest.fixture
def ringed():
    """A maker of zero tensors that repeat one ring of memory; it returns the tensor and the ring."""
    mapped = []

    def map_pages(address, size, protection, flags, file):
        result = libc.mmap(address, size, protection, flags, file, 0)
        assert result != ctypes.c_void_p(-1).value, os.strerror(ctypes.get_errno())
        return result

    def make(numel, dtype):
        size = -(-numel * dtype.itemsize // RING) * RING
        start = map_pages(None, size, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1)
        mapped.append((start, size))
        file = os.memfd_create("ring")
        os.ftruncate(file, RING)
        for offset in range(0, size, RING):
            map_pages(start + offset, RING, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | MAP_FIXED, file)
        os.close(file)
        memory = (ctypes.c_char * size).from_address(start)
        return tuple(torch.frombuffer(memory, dtype=dtype, count=n) for n in (numel, RING // dtype.itemsize))

    yield make
    for start, size in mapped:
        libc.munmap(start, size)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs memfd_create")
@pytest.mark.parametrize(
    "numel, dtype",
    [
        (2**31 + 12_345, torch.float32),
        # From here on, the second word of the counter of the random numbers is not zero.
        pytest.param(2**34 + 54_321, torch.bfloat16, marks=pytest.mark.slow),
    ],
    ids=["2^31", "2^34"],
)
def test_noise_of_the_last_elements(ringed, threads, numel, dtype):
    threads(1)  # so that the last elements are written last
    ring = step(ringed, numel, dtype, "cpu")
    helpers.assert_same_bits(ring, noise_of(numel, np.arange(len(ring)), len(ring), dtype))


@pytest.fixture
def last_chunks():
    """Only the last three chunks of a step are emulated."""
    _C.testing.emulate_tail(3)
    yield 3 * _C.testing.chunk
    _C.testing.emulate_tail(0)


@helpers.needs_emulation
@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs memfd_create")
@pytest.mark.parametrize(
    "numel, dtype",
    [
        (2**31 + 12_345, torch.float32),
        (2**32 + 4095, torch.float32),
        (2**32 + 4097, torch.bfloat16),
        (2**34 + 54_321, torch.bfloat16),
    ],
)
def test_cuda_kernels_at_the_end_of_a_tensor(ringed, last_chunks, numel, dtype):
    """They reach the last element, at its own place and with its own noise, and touch nothing before their chunks."""
    ring = step(ringed, numel, dtype, "cuda-emulated")
    chunk = _C.testing.chunk
    begin = (numel - 1) // chunk * chunk + chunk - last_chunks
    touched = np.arange(begin, numel) % len(ring)
    expected = torch.zeros(len(ring), dtype=dtype)
    expected[torch.from_numpy(touched)] = noise_of(numel, touched, len(ring), dtype)
    helpers.assert_same_bits(ring, expected)


def step(ringed, numel, dtype, backend):
    """The ring that a parameter repeats, after a step."""
    values, ring = ringed(numel, dtype)
    param = torch.nn.Parameter(values)
    optimizer = ExtrapSGD([param], lr=1.0, extrapolation=None, backend=backend, **NOISE)
    optimizer.state[param] = {"step": torch.zeros(()), "base": ringed(numel, torch.float32)[0]}
    param.grad = ringed(numel, dtype)[0]
    optimizer.step()
    return ring


def noise_of(numel, place, length, dtype):
    """Noise of the highest position at each place of a ring."""
    position = place + (numel - 1 - place) // length * length
    return torch.from_numpy(oracle.noise("uniform", position, key=NOISE["seed"], parameter=0, step=1)).to(dtype)
