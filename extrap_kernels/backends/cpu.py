"""Backend ``cpu``: the native kernels on CPU tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from extrap_kernels.backends.native import NativeExecutor, missing_native_reason
from extrap_kernels.backends.registry import Backend, register
from extrap_kernels.launch import Launch

if missing_native_reason() is None:
    from extrap_kernels import _C


class CpuExecutor(NativeExecutor):
    """Steps its entries, which are on the CPU, in one pass over their tensors."""

    on_device = False
    _plan: _C.CpuPlan

    def _make_plan(self, **arguments: Any) -> None:
        self._plan = _C.CpuPlan(**arguments)

    def add_gradient_square_sum(self, total: Tensor) -> None:
        """Add the squares of the gradients, as they are, to a 0-dim float64 tensor."""
        total += self._plan.gradient_square_sum(torch.get_num_threads())

    def add_direction_square_sum(self, launch: Launch, total: Tensor) -> None:
        """Add the squares of what the next :meth:`run` extrapolates along to a 0-dim float64 tensor."""
        self._fetch(launch)
        total += self._plan.direction_square_sum(launch.row, torch.get_num_threads())

    def square_sums(self, launch: Launch) -> Tensor:
        """Return what the next :meth:`run` makes norms of; what other processes have is to be added to it in place."""
        self._fetch(launch)
        sums = self._plan.square_sums(launch.row, torch.get_num_threads())
        self._measured = True
        if not sums.nbytes:
            return torch.empty(0, dtype=torch.float64, device=self.device)
        return torch.frombuffer(sums, dtype=torch.float64)

    def run(self, launch: Launch) -> None:
        """Step every entry that has a gradient."""
        self._fetch(launch)
        stepped = self._plan.active() if self._plan.skips() else self._everything
        self._plan.run(launch.row, self._measured, torch.get_num_threads())
        self._copies.put_back(stepped)


register(
    Backend(
        name="cpu",
        takes=lambda device: device.type == "cpu",
        missing_reason=missing_native_reason,
        executor=lambda: CpuExecutor,
    )
)
