"""The interface of a backend: an executor runs the steps of one bucket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Optional, Protocol

import torch
from torch import Tensor

from extrap_kernels.backends.param_entry import ParamEntry
from extrap_kernels.launch import Launch
from extrap_kernels.rules import RuleSpec
from extrap_kernels.state.layout import State, StateLayout


class Executor(Protocol):
    """Steps the parameters of a bucket: those of one param group, device, dtype and gradient dtype.

    ``bind`` comes first in each step, then the sums over gradients and directions that are asked for, then
    ``square_sums`` for sharded parameters, then ``run``.
    """

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""

    @property
    def on_device(self) -> bool:
        """Whether a step reads nothing on the host: no step count, no scaling, no tensor options."""

    def bind(self, states: list[Optional[State]], local_gradients: Mapping[Tensor, Tensor]) -> Optional[Sequence[int]]:
        """Read all tensors that the step will touch and hold them until :meth:`run` is done.

        A parameter without a gradient is skipped in this step.

        Args:
            states: the state of every parameter of the optimizer, None where there is none; that of an entry is found
                by its index.
            local_gradients: see ``ExtrapOptimizer.local_gradients``.

        Returns:
            None if the executor no longer fits the parameters. Otherwise the positions of the entries whose state is
            missing or does not fit; repair it, then bind again.

        Raises:
            RuntimeError: a gradient is sparse.
            ValueError: a local gradient does not fit its parameter.
        """

    def add_gradient_square_sum(self, total: Tensor) -> None:
        """Add the squares of the gradients, neither unscaled nor clipped, to a 0-dim float64 tensor on the device."""

    def add_direction_square_sum(self, launch: Launch, total: Tensor) -> None:
        """Add the squares of what the next :meth:`run` of ``launch`` extrapolates along to a 0-dim float64 tensor.

        For ``extrapolation="momentum"`` those of the first moments as they are before the step. Of rules with a norm,
        no other direction is asked for.
        """

    def square_sums(self, launch: Launch) -> Tensor:
        """Return the float64 sums that the next :meth:`run` takes norms of; the caller reduces them in place.

        Two numbers for each entry if the rule needs norms, in the backend's order: the sums of squares of the base
        iterate and of what is scaled. Then, if the noise scale needs them, the sums of squares of the rows of every
        base iterate. An executor that reduces over the processes itself returns an empty tensor.
        """

    def run(self, launch: Launch) -> None:
        """Step every parameter that has a gradient."""


class ExecutorType(Protocol):
    """The constructor of an executor."""

    def __call__(
        self, spec: RuleSpec, layout: StateLayout, entries: Sequence[ParamEntry], grad_dtype: torch.dtype
    ) -> Executor:
        """Make an executor.

        Args:
            spec: the rule.
            layout: layout of the state of every entry.
            entries: parameters of one device and dtype, with or without a gradient.
            grad_dtype: dtype in which the gradients are read: that of the parameters or of the base iterate.
        """
