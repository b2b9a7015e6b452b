"""Memory layouts: which tensors are dense, so that a kernel can walk them as contiguous memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.parameter import Parameter, UninitializedTensorMixin  # type: ignore[attr-defined]


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


def _span(tensor: Tensor) -> tuple[int, int]:
    """Return the addresses from and up to which a tensor has elements; for one without memory, those of an object."""
    if not is_plain(tensor) or type(tensor) not in (Tensor, Parameter) or tensor.device.type == "meta":
        return id(tensor), id(tensor) + 1
    reach = sum(stride * (size - 1) for stride, size in zip(tensor.stride(), tensor.shape)) + 1
    begin = tensor.data_ptr()
    return (begin, begin + reach * tensor.element_size()) if tensor.numel() > 0 else (id(tensor), id(tensor) + 1)


def turns(tensors: Sequence[Tensor]) -> list[int]:
    """Return for each tensor in which turn it can be stepped, so that those of one turn share no memory.

    That is 0 for all, unless tensors overlap or are listed twice: those take turns in their order.
    """
    clusters: list[list[int]] = []
    reach = 0
    for (begin, end), i in sorted((_span(tensor), i) for i, tensor in enumerate(tensors)):
        if begin >= reach:
            clusters.append([])
        clusters[-1].append(i)
        reach = max(reach, end)
    turn_of = {i: turn for cluster in clusters for turn, i in enumerate(sorted(cluster))}
    return [turn_of[i] for i in range(len(tensors))]


def in_memory_order(tensor: Tensor) -> Tensor:
    """Return the elements of a dense tensor in the order of its memory: a view of one dimension."""
    return tensor.as_strided((tensor.numel(),), (1,))


def empty_dense(param: Tensor, dtype: torch.dtype) -> Tensor:
    """Return an uninitialized dense tensor: with the strides of ``param`` if that is dense, else row-major."""
    memory_format = torch.preserve_format if is_dense(param) else torch.contiguous_format
    return torch.empty_like(param, dtype=dtype, memory_format=memory_format, requires_grad=False)
