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


def empty_state(param: Tensor) -> Tensor:
    """Return an uninitialized buffer for ``param`` in the precision of its base iterate.

    It has the parameter's strides where those are dense, row-major ones elsewhere; float64 for float64 parameters,
    float32 for all others (complex likewise).
    """
    double = param.dtype in (torch.float64, torch.complex128)
    if param.is_complex():
        dtype = torch.complex128 if double else torch.complex64
    else:
        dtype = torch.float64 if double else torch.float32
    memory_format = torch.preserve_format if is_dense(param) else torch.contiguous_format
    return torch.empty_like(param, dtype=dtype, memory_format=memory_format, requires_grad=False)
