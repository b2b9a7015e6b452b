"""What the tensors of a step are: whether a kernel may walk them as they are, and where they lie."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# An empty tensor has no address, but its kernel runs: it advances the step count.
_NOWHERE = 16


# Shape, strides, dtype and number of the device (comparing torch.device objects takes longer than all the rest).
Signature = tuple[torch.Size, tuple[int, ...], torch.dtype, int]


def signature(like: Tensor, dtype: torch.dtype | None = None) -> Signature:
    """Return all that the tables of a bucket take for granted of a tensor that is ``like`` a strided one."""
    return like.shape, like.stride(), like.dtype if dtype is None else dtype, like.get_device()


def have_signatures(tensors: Sequence[Tensor], wanted: Sequence[Signature]) -> bool:
    """Whether strided tensors have their signatures to the last stride: quick, for every tensor in every step."""
    return [(t.shape, t.stride(), t.dtype, t.get_device()) for t in tensors] == wanted


def fits(tensor: Tensor, wanted: Signature) -> bool:
    """Whether a kernel may walk ``tensor`` as one with the signature: strides of dimensions of size 1 do not matter."""
    shape, strides, dtype, device = wanted
    if tensor.layout != torch.strided or (tensor.shape, tensor.dtype, tensor.get_device()) != (shape, dtype, device):
        return False
    return tensor.numel() == 0 or all([n <= 1 or a == b for n, a, b in zip(shape, tensor.stride(), strides)])


def is_plain(tensor: Tensor) -> bool:
    """Whether the memory holds the values of ``tensor`` themselves, neither conjugated nor negated lazily."""
    return not (tensor.is_conj() or tensor.is_neg())


class Addresses:
    """The addresses of the tensors of a bucket's entries, checked when they are new.

    A kernel that is given an address reads and writes whatever is there: each tensor has to be inside of its storage.

    Args:
        entries: number of entries.
    """

    def __init__(self, entries: int) -> None:
        self._known: list[list[int]] = [[] for _ in range(entries)]

    def forget(self, i: int) -> None:
        """Have the addresses of entry ``i`` be new ones when it is updated next."""
        self._known[i] = []

    def update(self, i: int, names: Sequence[str], tensors: Sequence[Tensor | None]) -> list[int] | None:
        """Return the addresses of the tensors of entry ``i``, 0 for None; None if they are those of the last time.

        Raises:
            RuntimeError: a tensor without memory, or with less than it needs.
        """
        addresses = [0 if tensor is None else tensor.data_ptr() or _NOWHERE for tensor in tensors]
        if addresses == self._known[i]:
            return None
        for name, tensor in zip(names, tensors):
            if tensor is not None:
                _check_memory(name, tensor)
        self._known[i] = addresses
        return addresses


def _check_memory(name: str, tensor: Tensor) -> None:
    if tensor.numel() == 0:
        return
    last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride()))
    needed = (tensor.storage_offset() + last + 1) * tensor.element_size()
    held = 0 if tensor.is_meta else tensor.untyped_storage().nbytes()
    if held < needed:
        raise RuntimeError(
            f"the storage of {name} has {held} bytes, fewer than the {needed} that a tensor of shape "
            f"{tuple(tensor.shape)} needs; it was freed or resized: restore it before step()"
        )
