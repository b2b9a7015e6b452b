"""What emulated CUDA kernels ask the memory for: bytes, and the sectors that a GPU moves in their place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import extrap_kernels.testing  # noqa: F401, registers cuda-emulated
from extrap_kernels import _C
from extrap_kernels.state.recovery import INNER_LR

SECTOR = 32  # bytes


class Traffic(NamedTuple):
    """Of a step: bytes a parameter that loads and stores name, and those of the sectors that they ask for."""

    bytes: float
    sectors: float


def sectors(accesses: np.ndarray[Any, Any], tensors: Iterable[Tensor]) -> int:
    """Count the sectors that are asked for: by one instruction of a warp each once, however many threads want it.

    The n-th access of a thread among those of the same width, in the same direction and to the same tensor is of one
    instruction with the n-th ones of the other threads.

    Args:
        accesses: rows as those of ``_C.testing.recorded_accesses()``.
        tensors: all that are accessed.
    """
    address, size, is_store, thread = accesses.T
    tensor = np.searchsorted(np.sort([t.data_ptr() for t in tensors]), address, side="right")
    alike = ((thread * 16 + tensor) * 2 + is_store) * 32 + size
    order = np.argsort(alike, kind="stable")
    nth = np.empty_like(order)
    nth[order] = np.arange(len(order)) - np.searchsorted(alike[order], alike[order])
    return np.unique(np.stack([thread // 32, tensor, is_store, size, nth, address // SECTOR]), axis=1).shape[1]


def of_step(
    optimizer_type: Any, dtype: torch.dtype, gradient_dtype: torch.dtype, options: dict[str, Any], numel: int = 8192
) -> Traffic:
    """Return the traffic of the second emulated step of one matrix, without a local gradient.

    Raises:
        RuntimeError: this build has no emulated kernels, or this torch one dtype for parameter and gradient.
    """
    param = torch.nn.Parameter(torch.ones(numel // 64, 64, dtype=dtype))
    if dtype != gradient_dtype:
        if not hasattr(param, "grad_dtype"):
            raise RuntimeError(
                f"torch {torch.__version__} has no grad_dtype, for {gradient_dtype} gradients of {dtype}"
            )
        param.grad_dtype = gradient_dtype
    param.grad = torch.ones_like(param, dtype=gradient_dtype)
    optimizer = optimizer_type([param], backend="cuda-emulated", **options)
    optimizer.step()
    accesses = np.array(_C.testing.recorded_accesses(optimizer.step), dtype=np.int64)
    state = [value for name, value in optimizer.state[param].items() if name not in ("step", INNER_LR)]
    found = sectors(accesses, [param.data, param.grad, *state])
    return Traffic(int(accesses[:, 1].sum()) / numel, SECTOR * found / numel)
