"""Memory layouts: which tensors are dense, so that a kernel can walk them as contiguous memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]


def is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill contiguous memory without gaps or overlaps, in any order of dimensions."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape)):
        if size == 1:
            continue
        if stride != expected:
            return tensor.numel() == 0
        expected *= size
    return True


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor has memory that can be described by strides: not a lazy, sparse or nested one."""
    return not isinstance(tensor, UninitializedTensorMixin) and tensor.layout == torch.strided and not tensor.is_nested


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
    """Return an uninitialized dense tensor: with the strides of ``param`` if that is dense, else row-major."""
    memory_format = torch.preserve_format if is_dense(param) else torch.contiguous_format
    return torch.empty_like(param, dtype=dtype, memory_format=memory_format, requires_grad=False)
