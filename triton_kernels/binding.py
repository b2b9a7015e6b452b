"""Binds the tensors of a step: checks that kernels may walk them as they are, holds them, and tells where they lie."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Optional, Protocol

from torch import Tensor

from extrap_kernels.backends.dense_copies import DenseCopies
from extrap_kernels.backends.native import NativeExecutor, missing_native_reason
from extrap_kernels.state.layout import State
from extrap_kernels.triton_kernels.python_binding import PythonBinding

if missing_native_reason() is None:
    from extrap_kernels import _C


class Binding(Protocol):
    """The tensors of a bucket in one step; made with the arguments of an executor."""

    @property
    def copies(self) -> DenseCopies:
        """Of parameters and gradients that kernels cannot walk."""

    def bind(self, states: list[Optional[State]], local_gradients: Mapping[Tensor, Tensor]) -> Optional[Sequence[int]]:
        """Read and hold all tensors of this step; see :class:`extrap_kernels.backends.executor.Executor`."""

    def write_rows(self, table: array[int], first: int, width: int) -> None:
        """Write where the bound tensors lie, a row of int64 for each entry, ``width`` apart, from cell ``first`` on.

        Addresses of the step count, the inner learning rate that the base iterate is recovered by (0: it is not), the
        parameter, the base iterate and its low bytes (0: it has none), the gradient and the local gradient; whether all
        but the first two are multiples of 16; addresses of the buffers. An entry that is left out has 0 for its
        gradient.
        """

    def stepped(self) -> Sequence[int]:
        """Return the entries that have a gradient."""

    def release(self) -> None:
        """Let go of the tensors."""


class NativeBinding(NativeExecutor):
    """Binds tensors by the native module."""

    _plan: _C.AddressPlan

    @property
    def copies(self) -> DenseCopies:
        """See :class:`Binding`."""
        return self._copies

    def _make_plan(self, **arguments: Any) -> None:
        del arguments["rule"]
        self._plan = _C.AddressPlan(**arguments)

    def write_rows(self, table: array[int], first: int, width: int) -> None:
        """See :class:`Binding`."""
        self._plan.write_rows(table, first, width)

    def stepped(self) -> Sequence[int]:
        """Return the entries that have a gradient."""
        return self._plan.active() if self._plan.skips() else self._everything

    def release(self) -> None:
        """Let go of the tensors."""
        self._plan.release()


def binding_type() -> type[Any]:
    """Return what binds tensors here."""
    return NativeBinding if missing_native_reason() is None else PythonBinding
