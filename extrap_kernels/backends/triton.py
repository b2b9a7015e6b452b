"""Backend ``triton``: Triton kernels on GPUs, or interpreted on the CPU."""

from __future__ import annotations

from extrap_kernels import triton_kernels
from extrap_kernels.backends.executor import ExecutorType
from extrap_kernels.backends.registry import Backend, register


def _executor() -> ExecutorType:
    # Here, since it needs Triton.
    from extrap_kernels.triton_kernels.executor import TritonExecutor

    return TritonExecutor


register(
    Backend(
        name="triton",
        takes=lambda device: triton_kernels.takes_device(device),
        missing_reason=lambda: triton_kernels.missing_reason(),
        executor=_executor,
        on_device=True,
        for_speed=not triton_kernels.is_interpreted(),
    )
)
