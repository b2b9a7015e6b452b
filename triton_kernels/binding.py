"""What the tensors of a step are: where they lie, and whether a kernel may walk them as they are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# An empty tensor has no address, but its kernels run: they advance its step count.
_NOWHERE = 16


class Signature(NamedTuple):
    """All that the tables of a bucket take for granted of a tensor."""

    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor) -> Signature:
        """Return that of a strided tensor."""
        return cls(tensor.shape, tensor.stride(), tensor.dtype, tensor.device)

    def fits(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` has it; strides of dimensions of size 1 do not matter."""
        if tensor.layout != torch.strided or tensor.dtype != self.dtype or tensor.device != self.device:
            return False
        if tensor.shape != self.shape:
            return False
        strides = tensor.stride()
        return (
            strides == self.strides
            or tensor.numel() == 0
            or all([n <= 1 or a == b for n, a, b in zip(self.shape, strides, self.strides)])
        )


class Addresses:
    """Addresses of tensors, checked when they are new.

    A kernel that is given an address reads and writes whatever is there: each has to be inside of its storage.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], int] = {}

    def of(self, i: int, name: str, tensor: Tensor) -> int:
        """Return the address of a tensor, which is called ``name`` in entry ``i``.

        Raises:
            RuntimeError: its storage is smaller than the tensor.
        """
        address = tensor.data_ptr()
        if self._known.get((i, name)) != address:
            _check_storage(name, tensor)
            self._known[i, name] = address
        return address or _NOWHERE


def _check_storage(name: str, tensor: Tensor) -> None:
    if tensor.numel() == 0:
        return
    last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride()))
    needed = (tensor.storage_offset() + last + 1) * tensor.element_size()
    held = tensor.untyped_storage().nbytes()
    if held < needed:
        raise RuntimeError(
            f"the storage of {name} has {held} bytes, fewer than the {needed} that a tensor of shape "
            f"{tuple(tensor.shape)} needs; it was freed or resized: restore it before step()"
        )
