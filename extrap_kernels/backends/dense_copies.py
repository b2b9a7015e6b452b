"""Parameters and gradients as a kernel can walk them: dense in memory, copied if they are not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Optional

import torch
from torch import Tensor

from extrap_kernels.backends.param_entry import ParamEntry, check_gradient, check_local_gradient
from extrap_kernels.layout import empty_dense, is_dense
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
    """

    def __init__(self, entries: Sequence[ParamEntry], grad_dtype: torch.dtype) -> None:
        params = [entry.param for entry in entries]
        self.dense_params = [p if _is_plain(p) else empty_dense(p, p.dtype) for p in params]
        self._entries, self._grad_dtype = entries, grad_dtype
        self._copied = [i for i, p in enumerate(params) if self.dense_params[i] is not p]

    def to_layout(self, i: int, source: Tensor, *, is_local: bool) -> Optional[Tensor]:
        """Return a gradient of entry ``i`` in the layout of its parameter; None if it no longer fits the bucket.

        Raises:
            RuntimeError: a gradient that is not a dense tensor.
            ValueError: a local gradient that does not fit its parameter.
        """
        entry = self._entries[i]
        if is_local:
            check_local_gradient(entry.name, entry.param, source)
        else:
            check_gradient(entry.name, source)
        if source.shape != entry.param.shape:
            return None
        # In low precision, a copy would round what the arithmetic can hold.
        if source.dtype != self._grad_dtype and self._grad_dtype != arithmetic_dtype(entry.param.dtype):
            return None
        return empty_dense(self.dense_params[i], self._grad_dtype).copy_(source)

    def fetch(self) -> None:
        """Copy what the parameters hold, for kernels that read it."""
        for i in self._copied:
            self.dense_params[i].copy_(self._entries[i].param)

    def put_back(self, stepped: Iterable[int]) -> None:
        """Make the parameters of the entries ``stepped`` hold what the kernel wrote; autograd is told of the change."""
        stepped = set(stepped)
        torch.autograd.graph.increment_version([self._entries[i].param for i in stepped])
        for i in stepped.intersection(self._copied):
            self._entries[i].param.copy_(self.dense_params[i])
