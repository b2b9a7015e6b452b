"""Instruments of tests. To import this module makes backend ``cuda-emulated`` known.

``cuda-emulated`` runs the code of the CUDA kernels on CPU tensors, block by block and thread by thread: slow, and the
proof of the kernels where there is no GPU.
"""

from __future__ import annotations

from typing import Optional

from extrap_kernels.backends.cuda import CudaExecutor
from extrap_kernels.backends.native import missing_native_reason
from extrap_kernels.backends.registry import Backend, register

if missing_native_reason() is None:
    from extrap_kernels import _C

    emulate_tail = _C.testing.emulate_tail
    emulated_launches = _C.testing.emulated_launches
    read_by_stable_interface = _C.testing.read_by_stable_interface
    recorded_accesses = _C.testing.recorded_accesses


def _missing_reason() -> Optional[str]:
    reason = missing_native_reason()
    if reason is None and not _C.testing.emulation_built:
        return "this build has no emulated CUDA kernels; build it with EXTRAP_TESTING=ON (`make setup`)"
    return reason


class EmulatedCudaExecutor(CudaExecutor):
    """Steps CPU tensors by the code of the CUDA kernels."""

    emulated = True

    def _stream(self) -> int:
        return 0


register(
    Backend(
        name="cuda-emulated",
        takes=lambda device: device.type == "cpu",
        missing_reason=_missing_reason,
        executor=lambda: EmulatedCudaExecutor,
        on_device=True,
        for_speed=False,
        automatic=False,
    )
)
