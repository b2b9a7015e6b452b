"""Backend ``cuda``: the native kernels on CUDA tensors; and ``cuda-emulated``, their code run on the CPU for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

import torch
from torch import Tensor

from extrap_kernels.backends.native import NativeExecutor, missing_cpu_reason, native_shard
from extrap_kernels.backends.scaling import Scaling

if missing_cpu_reason() is None:
    from extrap_kernels import _C


def missing_cuda_reason() -> Optional[str]:
    """Return why the CUDA kernels cannot be used and what to do about it, or None if they can."""
    reason = missing_cpu_reason()
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
        return f"no CUDA device can be used ({problem}); install an NVIDIA driver, or use backend='auto' on the CPU"
    return None


class CudaExecutor(NativeExecutor):
    """Steps its members, on a CUDA device, in one launch on the current stream; rules with norms take one more.

    Nothing is allocated, read or waited for on the host, so that a step can be captured in a CUDA graph once the first
    one has run. A step captured with gradients of other layouts or dtypes than their parameters copies them.
    """

    on_device = True
    emulated = False
    _plan: _C.DevicePlan

    def _make_plan(self, **arguments: Any) -> None:
        shards = [native_shard(member.shard) for member in self._members if member.shard is not None]
        self._plan = _C.DevicePlan(**arguments, shards=shards, emulated=self.emulated)
        self._measured = False
        self._row_numels: dict[str, Tensor] = {}
        self._scratch = torch.empty(0, dtype=torch.float64, device=self.device)
        self._counters = torch.empty(0, dtype=torch.int32, device=self.device)

    def _stream(self) -> int:
        return torch.cuda.current_stream(self.device).cuda_stream

    def _prepare_scratch(self, group: Mapping[str, Any]) -> None:
        """Make room for what a step under the options of ``group`` sums up."""
        doubles, counters = self._plan.scratch_sizes(group)
        if doubles > self._scratch.numel() or counters > self._counters.numel():
            self._scratch = torch.empty(doubles, dtype=torch.float64, device=self.device)
            self._counters = torch.zeros(counters, dtype=torch.int32, device=self.device)
        self._plan.use_scratch(self._scratch.data_ptr(), self._counters.data_ptr())

    def add_gradient_square_sum(self, total: Tensor) -> None:
        """Add the squares of the gradients, as they are, to a 0-dim float64 tensor on the device."""
        self._prepare_scratch({})
        self._plan.add_gradient_square_sum(total.data_ptr(), self._stream())

    def _measure(self, group: Mapping[str, Any], correct: bool, scaling: Scaling) -> None:
        self._prepare_scratch(group)
        self._plan.measure(group, scaling.grad_scale, scaling.clip, correct, self._stream())

    def square_sums(self, group: Mapping[str, Any], *, correct: bool, scaling: Scaling) -> Tensor:
        """Return what the next :meth:`run` makes norms of; what other processes have is to be added to it in place."""
        self._prepare_scratch(group)
        self._scratch.zero_()  # of empty shards nothing is summed
        self._measure(group, correct, scaling)
        self._measured = True
        first, norms_end = self._plan.norm_sums()
        rows, end = self._plan.row_sums(group)
        if norms_end == first:
            first = rows
        return self._scratch[first:end]

    def _take_root_mean_squares(self, group: Mapping[str, Any]) -> None:
        """Make rms of the sums over the rows of whole tensors."""
        first, end = self._plan.row_sums(group)
        if end == first:
            return
        scale = group["noise_scale"]
        if scale not in self._row_numels:  # once: the copy to the device could not be captured in a CUDA graph
            self._row_numels[scale] = torch.tensor(
                self._plan.row_numels(group), dtype=torch.float64, device=self.device
            )
        self._scratch[first:end].div_(self._row_numels[scale]).sqrt_()

    def run(self, group: Mapping[str, Any], *, key: int, correct: bool, scaling: Scaling) -> None:
        """Step every member under the options of ``group``."""
        if not correct or scaling.found_inf is not None:  # where it is set, the kernel writes nothing
            self._staging.fetch()
        if self._measured:
            self._take_root_mean_squares(group)
        else:
            self._measure(group, correct, scaling)
        self._measured = False
        scale, clip, found_inf = scaling.grad_scale, scaling.clip, scaling.found_inf
        self._plan.step(group, key, correct, scale, clip, found_inf, self._stream())
        self._staging.put_back()


class EmulatedCudaExecutor(CudaExecutor):
    """Steps CPU tensors by the CUDA kernels' code, block by block and thread by thread: slow, for tests."""

    emulated = True

    def _stream(self) -> int:
        return 0
