"""How many kernels a step launches on a GPU: for apex and torch, from the limits of their sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

CHUNK = 65536  # elements that one block takes, in apex and in torch


class Limits(NamedTuple):
    """Of one launch: how many tensors by the number of tensor lists (from 1), and how many blocks."""

    tensors: tuple[int, ...]
    blocks: int


# apex: csrc/multi_tensor_apply.cuh. torch: aten/src/ATen/native/cuda/MultiTensorApply.cuh, whose table is larger where
# torch was built with CUDA 13 or newer.
APEX = Limits((110, 64, 48, 36, 30), 320)
TORCH = Limits((110, 64, 48, 36, 30), 320)
TORCH_CUDA_13 = Limits((770, 448, 336, 252, 210), 2240)

# The lists of tensors that each kernel of a step takes. Fused: parameter, gradient and the buffers. foreach: of the
# torch._foreach calls in torch/optim/sgd.py with momentum and Nesterov, and in adam.py; a new result is one list more.
# (Those with a list of scalars have a slightly smaller table, which is left out of account.)
FUSED = {"sgd": (3,), "adamw": (4,)}
FOREACH = {"sgd": (1, 2, 2, 2), "adamw": (1, 2, 1, 3, 2, 1, 1, 3)}


def launches(numels: Sequence[int], limits: Limits, lists: int) -> int:
    """Return how many launches take in tensors of ``numels`` elements, in this order, a chunk for each block.

    A launch is full when it has its number of blocks, or its number of tensors and the last of them whole; a tensor
    that did not fit is continued in the next one.
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
    """Return the launches of a step of several kernels, each given by the number of its tensor lists."""
    return sum(launches(numels, limits, lists) for lists in kernels)
