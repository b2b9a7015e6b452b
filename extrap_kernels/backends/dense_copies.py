"""Parameters and gradients as a kernel can walk them: dense in memory, copied if they are not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor

from extrap_kernels.backends.param_entry import ParamEntry, check_gradient, check_local_gradient
from extrap_kernels.layout import empty_dense, is_dense, overlaps
from extrap_kernels.state.layout import arithmetic_dtype


def _is_plain(param: Tensor) -> bool:
    return is_dense(param) and not param.is_conj() and not param.is_neg()


class DenseCopies:
    """What a kernel steps in place of parameters that share a dtype.

    Args:
        entries: the parameters.
        grad_dtype: dtype in which the kernel reads gradients.

    Attributes:
        dense_params: the parameters; for one with gaps or lazily conjugated, a dense copy.
        copied: positions of those that are copied.

    Raises:
        ValueError: a parameter whose elements share memory.
    """

    def __init__(self, entries: Sequence[ParamEntry], grad_dtype: torch.dtype) -> None:
        self._entries, self._grad_dtype = entries, grad_dtype
        self.dense_params = [self._dense(entry) for entry in entries]
        self.copied = [i for i, entry in enumerate(entries) if self.dense_params[i] is not entry.param]

    @property
    def own(self) -> list[Tensor]:
        """The copies of parameters that are copied."""
        return [self.dense_params[i] for i in self.copied]

    @staticmethod
    def _dense(entry: ParamEntry) -> Tensor:
        param = entry.param
        if _is_plain(param):
            return param
        if overlaps(param):
            raise ValueError(f"{entry.name} has strides {param.stride()}: its elements share memory; assign a copy")
        return empty_dense(param, param.dtype)

    def fit(self) -> bool:
        """Whether the parameters that are copied still have the shape, dtype and device of their copies."""
        for i in self.copied:
            if not self._fits(self._entries[i].param, self.dense_params[i]):
                return False
        return True

    @staticmethod
    def _fits(param: Tensor, copy: Tensor) -> bool:
        return param.shape == copy.shape and param.dtype == copy.dtype and param.device == copy.device

    def to_layout(self, i: int, source: Tensor, *, is_local: bool) -> Optional[Tensor]:
        """Return a gradient of entry ``i`` in the layout of its parameter; None if it no longer fits the bucket.

        Raises:
            RuntimeError: a gradient that is not a dense tensor.
            ValueError: a gradient that does not have the shape of its parameter.
        """
        entry = self._entries[i]
        if is_local:
            check_local_gradient(entry.name, entry.param, source)
        else:
            check_gradient(entry.name, source)
        if source.shape != entry.param.shape:
            raise ValueError(f"the gradient of {entry.name} has shape {tuple(source.shape)}; compute it anew")
        # In low precision, a copy would round what the arithmetic can hold.
        if source.dtype != self._grad_dtype and self._grad_dtype != arithmetic_dtype(entry.param.dtype):
            return None
        return empty_dense(self.dense_params[i], self._grad_dtype).copy_(source)

    def fetch(self) -> None:
        """Copy what the parameters hold, for kernels that read it."""
        for i in self.copied:
            self.dense_params[i].copy_(self._entries[i].param)

    def put_back(self, stepped: Sequence[int]) -> None:
        """Make the parameters of the entries ``stepped`` hold what the kernel wrote; autograd is told of it."""
        everything = len(stepped) == len(self._entries)
        written = self.dense_params if everything else [self.dense_params[i] for i in stepped]
        torch.autograd.graph.increment_version(written)
        for i in self.copied if everything else set(self.copied).intersection(stepped):
            self._entries[i].param.copy_(self.dense_params[i])
