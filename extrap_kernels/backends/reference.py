"""Backend ``reference``: plain PyTorch, one parameter after the other, on any device."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Optional

import torch
from torch import Tensor

from extrap_kernels.backends.param_entry import ParamEntry, check_gradient, check_local_gradient
from extrap_kernels.backends.registry import Backend, register
from extrap_kernels.launch import Launch
from extrap_kernels.reference import rules
from extrap_kernels.reference.norms import square_sum
from extrap_kernels.reference.step import direction_of, step_parameter
from extrap_kernels.rules import RuleSpec
from extrap_kernels.state.layout import State, StateLayout


class ReferenceExecutor:
    """Steps its entries with :func:`extrap_kernels.reference.step.step_parameter`, one after the other."""

    on_device = False

    def __init__(
        self, spec: RuleSpec, layout: StateLayout, entries: Sequence[ParamEntry], grad_dtype: torch.dtype
    ) -> None:
        self.device = entries[0].param.device
        self._dtype = entries[0].param.dtype
        self._rule = importlib.import_module(f"{rules.__name__}.{spec.name}")
        self._layout, self._entries = layout, entries
        self._bound: list[tuple[ParamEntry, State, Tensor, Optional[Tensor]]] = []

    def bind(self, states: list[Optional[State]], local_gradients: Mapping[Tensor, Tensor]) -> Optional[Sequence[int]]:
        """Take in the gradients of this step."""
        self._bound, missing = [], []
        for i, entry in enumerate(self._entries):
            param, gradient, state = entry.param, entry.param.grad, states[entry.index]
            if param.device != self.device or param.dtype != self._dtype:
                return None
            if gradient is None:
                continue
            check_gradient(entry.name, gradient)
            local = local_gradients.get(param) if local_gradients else None
            if local is not None:
                check_local_gradient(entry.name, param, local)
            if state is None or not self._layout.complete(state, param):
                missing.append(i)
            else:
                self._bound.append((entry, state, gradient, local))
        return missing

    def add_gradient_square_sum(self, total: Tensor) -> None:
        """Add the squares of the gradients, without unscaling, to a 0-dim float64 tensor."""
        for _, _, g, _ in self._bound:
            total += square_sum(torch.view_as_real(g.resolve_conj()) if g.is_complex() else g)

    def add_direction_square_sum(self, launch: Launch, total: Tensor) -> None:
        """Add the squares of what the next :meth:`run` extrapolates along to a 0-dim float64 tensor."""
        for entry, state, gradient, local in self._bound:
            total += square_sum(direction_of(self._rule, self._layout, launch, entry, state, gradient, local))

    def square_sums(self, launch: Launch) -> Tensor:
        """Return an empty tensor: :func:`step_parameter` reduces its sums over the processes itself."""
        return torch.empty(0, dtype=torch.float64, device=self.device)

    def run(self, launch: Launch) -> None:
        """Step every parameter that has a gradient."""
        bound, self._bound = self._bound, []
        for entry, state, gradient, local in bound:
            step_parameter(self._rule, self._layout, launch, entry, state, gradient, local)


register(
    Backend(
        name="reference",
        takes=lambda device: True,
        missing_reason=lambda: None,
        executor=lambda: ReferenceExecutor,
        for_speed=False,
    )
)
