"""Parameters and gradients as a kernel can walk them: dense runs of memory, copied where they are none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor

from extrap_kernels.backends.member import Member, check_local_gradient
from extrap_kernels.backends.versions import incrementer
from extrap_kernels.layout import empty_dense, is_dense


def like_param(param: Tensor, local: Optional[Tensor]) -> bool:
    """Whether a kernel may read the gradients in the parameter's dtype; else it reads that of the base iterate."""
    return all(g.dtype == param.dtype for g in (param.grad, local) if g is not None)


def _is_plain(param: Tensor) -> bool:
    return is_dense(param) and not param.is_conj() and not param.is_neg()


class Staging:
    """What a kernel steps in place of its parameters, which share a dtype.

    Args:
        members: parameters with a gradient.
        like_param: whether their gradients have their dtype.

    Attributes:
        targets: the parameters; for one that is no plain run of memory, a copy that replaces its values after the step.
        grad_dtype: what the kernel reads gradients in.
    """

    def __init__(self, members: Sequence[Member], like_param: bool) -> None:
        self.targets = [m.param if _is_plain(m.param) else empty_dense(m.param, m.param.dtype) for m in members]
        self._staged = [(m.param, t) for m, t in zip(members, self.targets) if t is not m.param]
        self._increment_versions = incrementer(self.targets)
        self._like_param = like_param
        self.grad_dtype = members[0].param.dtype if like_param else members[0].state["base"].dtype

    def relaid(self, i: int, param: Tensor, source: Tensor, *, is_local: bool) -> Optional[Tensor]:
        """Return a gradient in the layout of its parameter; None where it no longer fits the bucket.

        Raises:
            ValueError: a local gradient that does not fit its parameter.
        """
        if is_local:
            check_local_gradient(param, source)
        if source.layout != torch.strided or source.shape != param.shape:
            return None
        if self._like_param and source.dtype != param.dtype:
            return None
        return empty_dense(self.targets[i], self.grad_dtype).copy_(source)

    def fetch(self) -> None:
        """Copy what the parameters hold, for kernels that read it."""
        for param, target in self._staged:
            target.copy_(param)

    def put_back(self) -> None:
        """Make the parameters hold what the kernel wrote."""
        self._increment_versions()
        for param, target in self._staged:
            param.copy_(target)
