"""Instruments of tests. To import this module makes backend ``cuda-emulated`` known.

``cuda-emulated`` runs the code of the CUDA kernels on CPU tensors, block by block and thread by thread: slow, and the
proof of the kernels where there is no GPU.
"""

from __future__ import annotations

from extrap_kernels.backends.cuda import CudaExecutor
from extrap_kernels.backends.native import missing_native_reason
from extrap_kernels.backends.registry import Backend, register

if missing_native_reason() is None:
    from extrap_kernels import _C

    emulate_tail = _C.testing.emulate_tail
    emulated_launches = _C.testing.emulated_launches
    read_by_dlpack = _C.testing.read_by_dlpack
    recorded_accesses = _C.testing.recorded_accesses


class EmulatedCudaExecutor(CudaExecutor):
    """Steps CPU tensors by the code of the CUDA kernels."""

    emulated = True

    def _stream(self) -> int:
        return 0


register(
    Backend(
        name="cuda-emulated",
        takes=lambda device: device.type == "cpu",
        missing_reason=missing_native_reason,
        executor=lambda: EmulatedCudaExecutor,
        on_device=True,
        for_speed=False,
        automatic=False,
    )
)
