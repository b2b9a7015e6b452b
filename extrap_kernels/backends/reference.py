"""Backend ``reference``: plain PyTorch, one parameter after the other, on any device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Optional

import torch
from torch import Tensor

from extrap_kernels.backends.member import Member, check_local_gradient
from extrap_kernels.reference.step import step_parameter


class ReferenceExecutor:
    """Steps its members through :func:`extrap_kernels.reference.step.step_parameter`."""

    def __init__(self, rule: ModuleType, members: Sequence[Member], absent: Sequence[Tensor]) -> None:
        self._rule = rule
        self._members = members
        self._absent = absent
        self._local: Mapping[Tensor, Tensor] = {}

    def refresh(self, local_gradients: Mapping[Tensor, Tensor]) -> bool:
        """Take in the gradients of this step; False if other parameters have gradients than before."""
        for param, local in local_gradients.items():
            check_local_gradient(param, local)
        self._local = dict(local_gradients)
        present = all(m.param.grad is not None and m.param.grad.layout == torch.strided for m in self._members)
        return present and all(param.grad is None for param in self._absent)

    def run(self, group: Mapping[str, Any], *, key: int, correct: bool, grad_scale: Optional[float]) -> None:
        """Step every member under the options of ``group``."""
        for member in self._members:
            assert member.param.grad is not None
            step_parameter(
                self._rule,
                group,
                member.param,
                member.state,
                member.param.grad,
                self._local.get(member.param),
                key=key,
                index=member.index,
                correct=correct,
                grad_scale=grad_scale,
            )
        self._local = {}
