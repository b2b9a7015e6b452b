"""Sharded tensors (DTensors): the local part and its place in the whole tensor."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor
from typing_extensions import TypeGuard

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.tensor import DTensor


def is_dtensor(tensor: Any) -> TypeGuard[DTensor]:
    """Whether ``tensor`` is a DTensor."""
    # No DTensor exists before this module is imported; importing it here would be slow.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local_part(tensor: Tensor) -> Tensor:
    """Return the local part of a DTensor, always as the same object; return any other tensor unchanged."""
    # to_local() would make a new view of a parameter.
    return tensor._local_tensor if is_dtensor(tensor) else tensor


@dataclass(frozen=True)
class Shard:
    """Place of the local part of a DTensor in the whole tensor, whose real numbers are counted row by row.

    The local part, row by row as well, is a series of extents of numbers that follow each other in the whole tensor. A
    complex element counts as two numbers.

    Attributes:
        offset: position in the whole tensor of the first number.
        extent: how many numbers follow each other in the whole tensor, at least 1.
        stride: distance in the whole tensor of the first numbers of two extents.
        numel: how many numbers the whole tensor has.
        rows: its size along dim 0.
        groups: process groups over which sums are added up to be those of the whole tensor, one after the other.
        row_groups: the same for sums over one row.
    """

    offset: int
    extent: int
    stride: int
    numel: int
    rows: int
    groups: tuple[ProcessGroup, ...]
    row_groups: tuple[ProcessGroup, ...]

    @classmethod
    def of(cls, tensor: DTensor) -> Shard:
        """Return where the local part of ``tensor`` lies.

        Raises:
            ValueError: the local part does not consist of such extents, is not row-major, or is a term of a sum.
        """
        from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

        mesh, local = tensor.device_mesh, local_part(tensor)
        sharded = {i: placement.dim for i, placement in enumerate(tensor.placements) if hasattr(placement, "dim")}
        if any(placement.is_partial() for placement in tensor.placements):
            raise ValueError(f"a parameter with placements {tensor.placements} is partial; use Shard or Replicate")
        if not local.is_contiguous():
            raise ValueError(
                f"the local part of a sharded parameter has shape {tuple(local.shape)} and strides {local.stride()}; "
                "distribute a contiguous tensor"
            )
        _, start = compute_local_shape_and_global_offset(tensor.shape, mesh, tensor.placements)
        parts = 2 if tensor.is_complex() else 1
        offset, extent, stride = _extents(tensor.shape, local.shape, start)
        return cls(
            offset * parts,
            extent * parts,
            stride * parts,
            tensor.numel() * parts,
            tensor.shape[0] if tensor.dim() else 1,
            tuple(mesh.get_group(i) for i in sharded),
            tuple(mesh.get_group(i) for i, dim in sharded.items() if dim != 0),
        )

    def positions(self, i: Tensor) -> Tensor:
        """Return the position in the whole tensor of the ``i``-th numbers of the local part, int64."""
        return self.offset + i.div(self.extent, rounding_mode="floor") * self.stride + i % self.extent


def _extents(whole: Sequence[int], local: Sequence[int], start: Sequence[int]) -> tuple[int, int, int]:
    """Return offset, extent and stride of the part of ``whole`` of shape ``local`` that starts at ``start``."""
    if 0 in local or not local:
        return 0, 1, 1
    strides = [1]
    for size in whole[:0:-1]:
        strides.insert(0, strides[0] * size)
    offset = sum(first * stride for first, stride in zip(start, strides))
    # From the last dimension on: one that continues the extents of those after it makes them longer.
    levels = [(1, 1)]
    for size, stride in zip(reversed(local), reversed(strides)):
        count, distance = levels[-1]
        if stride == count * distance:
            levels[-1] = (count * size, distance)
        elif size > 1:
            levels.append((size, stride))
    if len(levels) > 2:
        raise ValueError(
            f"a shard of shape {tuple(local)} of a tensor of shape {tuple(whole)} has gaps in more than one dimension; "
            "shard it along one dimension, or along dim 0 and one other"
        )
    return offset, levels[0][0], levels[-1][1]
