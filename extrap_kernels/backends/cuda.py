"""Backend ``cuda``: the native kernels on CUDA tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch import Tensor

from extrap_kernels import capture, scalars
from extrap_kernels.backends.native import NativeExecutor, missing_native_reason
from extrap_kernels.backends.registry import Backend, register
from extrap_kernels.launch import Launch

if missing_native_reason() is None:
    from extrap_kernels import _C

_NO_SCALARS = scalars.pack({})


def missing_cuda_reason() -> Optional[str]:
    """Return why the CUDA kernels cannot be used and what to do about it, or None if they can."""
    reason = missing_native_reason()
    if reason is not None:
        return reason
    if not _C.cuda_built:
        return (
            "the native module was built without CUDA; reinstall extrap_kernels with nvcc on PATH and EXTRAP_CUDA=on, "
            "or use backend='triton' or 'reference'"
        )
    if torch.version.hip is not None:
        return "this torch is built for ROCm, not for CUDA; use backend='triton' or 'reference'"
    problem = _C.cuda_problem()
    if problem is not None:
        return f"no CUDA device can be used ({problem}); install an NVIDIA driver that fits, or use backend='auto'"
    return None


def has_code(capability: tuple[int, int], archs: Sequence[int]) -> bool:
    """Whether kernels built for ``archs``, with PTX for the last one, run on a GPU of this compute capability.

    Machine code runs on GPUs of its major version that are not older; PTX, on all that are not older.
    """
    major, minor = capability
    return any(arch // 10 == major and arch % 10 <= minor for arch in archs) or archs[-1] <= 10 * major + minor


def missing_code_reason(device: torch.device) -> Optional[str]:
    """Return why the kernels that were built do not run on this GPU and what to do about it, or None if they do."""
    major, minor = torch.cuda.get_device_capability(device)
    if has_code((major, minor), _C.cuda_archs):
        return None
    return (
        f"its compute capability is {major}.{minor}, and extrap_kernels was built for {_C.cuda_archs}; reinstall it "
        f"with EXTRAP_CUDA_ARCHS={major}{minor}, or use backend='triton' or 'reference'"
    )


class CudaExecutor(NativeExecutor):
    """Steps its entries, on a CUDA device, in one launch on the current stream; rules with norms take one more.

    Nothing is allocated, read or waited for on the host, so that a step can be captured in a CUDA graph once the first
    one has run. A step captured with gradients of other layouts or dtypes than their parameters copies them.
    """

    on_device = True
    emulated = False
    _plan: _C.CudaPlan

    def _make_plan(self, **arguments: Any) -> None:
        self._plan = _C.CudaPlan(**arguments, emulated=self.emulated)
        self._row_numels: dict[str, Tensor] = {}
        self._scratch = torch.empty(0, dtype=torch.float64, device=self.device)
        self._counters = torch.empty(0, dtype=torch.int32, device=self.device)
        self._of_a_graph = False

    def _stream(self) -> int:
        return torch.cuda.current_stream(self.device).cuda_stream

    def _prepare_scratch(self, row: bytes) -> None:
        """Make room for what a step with these scalars sums up."""
        doubles, counters = self._plan.scratch_sizes(row)
        capturing = capture.is_capturing(self.device)
        if self._of_a_graph or doubles > self._scratch.numel() or counters > self._counters.numel():
            self._scratch = torch.empty(doubles, dtype=torch.float64, device=self.device)
            self._counters = torch.zeros(counters, dtype=torch.int32, device=self.device)
            # Replays of a graph set them to 0, its capture does not: they are of use to that graph alone.
            self._of_a_graph = capturing
        if capturing:
            capture.keep(self._scratch, self._counters)
        self._plan.use_scratch(self._scratch.data_ptr(), self._counters.data_ptr())

    def add_gradient_square_sum(self, total: Tensor) -> None:
        """Add the squares of the gradients, as they are, to a 0-dim float64 tensor on the device."""
        self._prepare_scratch(_NO_SCALARS)
        self._plan.add_gradient_square_sum(total.data_ptr(), self._stream())

    def add_direction_square_sum(self, launch: Launch, total: Tensor) -> None:
        """Add the squares of what the next :meth:`run` extrapolates along to a 0-dim float64 tensor on the device."""
        self._prepare_scratch(launch.row)
        self._fetch(launch)
        self._plan.add_direction_square_sum(launch.row, launch.on_device, total.data_ptr(), self._stream())

    def _measure(self, launch: Launch) -> None:
        self._fetch(launch)
        self._plan.measure(launch.row, launch.on_device, self._stream())

    def square_sums(self, launch: Launch) -> Tensor:
        """Return what the next :meth:`run` makes norms of; what other processes have is to be added to it in place."""
        self._prepare_scratch(launch.row)
        self._scratch.zero_()  # of empty shards nothing is summed
        self._measure(launch)
        self._measured = True
        first, norms_end = self._plan.norm_sums(launch.row)
        rows, end = self._plan.row_sums(launch.row)
        if norms_end == first:
            first = rows
        return self._scratch[first:end]

    def _take_root_mean_squares(self, launch: Launch) -> None:
        """Make rms of the sums over the rows of whole tensors."""
        first, end = self._plan.row_sums(launch.row)
        if end == first:
            return
        scale = launch.noise_scale
        if scale not in self._row_numels:  # once: the copy to the device could not be captured in a CUDA graph
            numels = self._plan.row_numels(launch.row)
            self._row_numels[scale] = torch.tensor(numels, dtype=torch.float64, device=self.device)
        self._scratch[first:end].div_(self._row_numels[scale]).sqrt_()

    def run(self, launch: Launch) -> None:
        """Step every entry that has a gradient."""
        if self._measured:
            self._take_root_mean_squares(launch)
        else:
            self._prepare_scratch(launch.row)
            self._measure(launch)
        self._measured = False
        stepped = self._plan.active() if self._plan.skips() else self._everything
        self._plan.step(launch.row, launch.on_device, launch.found_inf, self._stream())
        self._copies.put_back(stepped)
        if capture.is_capturing(self.device):
            capture.keep(self._row_numels, self._copies.own)


register(
    Backend(
        name="cuda",
        takes=lambda device: device.type == "cuda",
        missing_reason=missing_cuda_reason,
        executor=lambda: CudaExecutor,
        on_device=True,
        missing_on=missing_code_reason,
    )
)
