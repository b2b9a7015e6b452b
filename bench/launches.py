"""Kernel launches of a step of apex and torch, computed from the limits in their sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

CHUNK = 65536  # elements per thread block, in apex and in torch


class Limits(NamedTuple):
    """Limits of one launch: tensors, by the number of tensor lists (from 1), and blocks."""

    tensors: tuple[int, ...]
    blocks: int


# apex: csrc/multi_tensor_apply.cuh. torch: aten/src/ATen/native/cuda/MultiTensorApply.cuh; its table is larger if torch
# was built with CUDA 13 or newer.
APEX = Limits((110, 64, 48, 36, 30), 320)
TORCH = Limits((110, 64, 48, 36, 30), 320)
TORCH_CUDA_13 = Limits((770, 448, 336, 252, 210), 2240)

# Number of tensor lists of each kernel of a step. Fused: parameter, gradient and the buffers. foreach: the
# torch._foreach calls in torch/optim/sgd.py (momentum, Nesterov) and adam.py; a call that returns new tensors has one
# more list.
# (Kernels with a list of scalars have a slightly smaller table; that is ignored here.)
FUSED = {"sgd": (3,), "adamw": (4,)}
FOREACH = {"sgd": (1, 2, 2, 2), "adamw": (1, 2, 1, 3, 2, 1, 1, 3)}


def launches(numels: Sequence[int], limits: Limits, lists: int) -> int:
    """Return the number of launches for tensors of ``numels`` elements, in this order, with one block per chunk.

    A launch is full when it has all its blocks, or all its tensors and the whole of the last one. A tensor that does
    not fit continues in the next launch.
    """
    count = tensors = blocks = 0
    for numel in numels:
        chunks = -(-numel // CHUNK)
        tensors += chunks > 0
        while chunks > 0:
            taken = min(chunks, limits.blocks - blocks)
            chunks -= taken
            blocks += taken
            if blocks == limits.blocks or (chunks == 0 and tensors == limits.tensors[lists - 1]):
                count += 1
                blocks, tensors = 0, int(chunks > 0)
    return count + (blocks > 0)


def of_step(numels: Sequence[int], limits: Limits, kernels: Sequence[int]) -> int:
    """Return the launches of a step of several kernels; each is given by its number of tensor lists."""
    return sum(launches(numels, limits, lists) for lists in kernels)
