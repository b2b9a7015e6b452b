"""Backend ``reference``: plain PyTorch, one parameter after the other, on any device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Optional

from torch import Tensor

from extrap_kernels.backends.member import Member
from extrap_kernels.reference.step import step_parameter


class ReferenceExecutor:
    """Steps its members through :func:`extrap_kernels.reference.step.step_parameter`.

    It looks everything up as a step is planned, so it serves one step and is planned anew for the next.
    """

    def __init__(self, rule: ModuleType, members: Sequence[Member], local_gradients: Mapping[Tensor, Tensor]) -> None:
        self._rule = rule
        self._members = members
        self._local = dict(local_gradients)

    def refresh(self, local_gradients: Mapping[Tensor, Tensor]) -> bool:
        """Return False: plan again."""
        return False

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
