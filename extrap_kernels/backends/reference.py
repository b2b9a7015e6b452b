"""Backend ``reference``: plain PyTorch, one parameter after the other, on any device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from extrap_kernels.backends.member import Member
from extrap_kernels.backends.scaling import Scaling
from extrap_kernels.reference.norms import square_sum
from extrap_kernels.reference.step import step_parameter


class ReferenceExecutor:
    """Steps its members through :func:`extrap_kernels.reference.step.step_parameter`.

    It looks everything up as a step is planned, so it serves one step and is planned anew for the next.
    """

    on_device = False

    def __init__(self, rule: ModuleType, members: Sequence[Member], local_gradients: Mapping[Tensor, Tensor]) -> None:
        self.device = members[0].param.device
        self._rule = rule
        self._members = members
        self._local = dict(local_gradients)

    def refresh(self, local_gradients: Mapping[Tensor, Tensor]) -> bool:
        """Return False: plan again."""
        return False

    def add_gradient_square_sum(self, total: Tensor) -> None:
        """Add the squares of the gradients, as they are, to a 0-dim float64 tensor."""
        for g in self._gradients():
            total += square_sum(torch.view_as_real(g.resolve_conj()) if g.is_complex() else g)

    def square_sums(self, group: Mapping[str, Any], *, correct: bool, scaling: Scaling) -> Tensor:
        """Return an empty tensor: :func:`step_parameter` adds its sums up over the processes by itself."""
        return torch.empty(0, dtype=torch.float64)

    def _gradients(self) -> list[Tensor]:
        return [member.param.grad for member in self._members if member.param.grad is not None]

    def run(self, group: Mapping[str, Any], *, key: int, correct: bool, scaling: Scaling) -> None:
        """Step every member under the options of ``group``."""
        for member, grad in zip(self._members, self._gradients()):
            step_parameter(
                self._rule,
                group,
                member.param,
                member.state,
                grad,
                self._local.get(member.param),
                key=key,
                index=member.index,
                shard=member.shard,
                correct=correct,
                grad_scale=float(scaling.grad_scale),
                clip=float(scaling.clip),
            )
