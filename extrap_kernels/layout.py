"""Memory layouts: which tensors can be walked as one run of memory."""

from __future__ import annotations

import torch
from torch import Tensor


def is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill one run of memory without gaps or overlaps, in any order of dimensions."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape)):
        if size == 1:
            continue
        if stride != expected:
            return tensor.numel() == 0
        expected *= size
    return True


def overlaps(tensor: Tensor) -> bool:
    """Whether two elements may share memory (an expanded tensor, for example)."""
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape)):
        if size > 1:
            if stride <= reach:
                return tensor.numel() > 0
            reach += stride * (size - 1)
    return False


def empty_dense(param: Tensor, dtype: torch.dtype) -> Tensor:
    """Return an uninitialized dense tensor with the strides of ``param`` where those are dense, else row-major ones."""
    memory_format = torch.preserve_format if is_dense(param) else torch.contiguous_format
    return torch.empty_like(param, dtype=dtype, memory_format=memory_format, requires_grad=False)


def base_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of the base iterate: double precision for double parameters, single for all others."""
    double = dtype in (torch.float64, torch.complex128)
    if dtype.is_complex:
        return torch.complex128 if double else torch.complex64
    return torch.float64 if double else torch.float32


def empty_state(param: Tensor) -> Tensor:
    """Return an uninitialized buffer for ``param`` as its optimizer state needs it."""
    return empty_dense(param, base_dtype(param.dtype))


def has_state_layout(tensor: Tensor, param: Tensor) -> bool:
    """Whether ``tensor`` has the dtype and the strides that :func:`empty_state` would give it."""
    if tensor.dtype != base_dtype(param.dtype):
        return False
    wanted = param if is_dense(param) else torch.empty(param.shape, device="meta")
    return tensor.numel() == 0 or all(
        size <= 1 or have == want for size, have, want in zip(param.shape, tensor.stride(), wanted.stride())
    )
