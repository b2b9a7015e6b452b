"""Training with several processes, on top of ``torch.distributed``.

ZeRO is in :mod:`extrap_kernels.distributed.zero`, because importing torch's is slow.
"""

from extrap_kernels.distributed.averaging import PeriodicBaseAverager, average_base
from extrap_kernels.distributed.checkpoint import WorkerPoints
from extrap_kernels.distributed.ddp import LocalGradients, register_local_gradient_hook

__all__ = [
    "LocalGradients",
    "PeriodicBaseAverager",
    "WorkerPoints",
    "average_base",
    "register_local_gradient_hook",
]
