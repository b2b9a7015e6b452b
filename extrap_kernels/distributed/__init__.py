"""Training with several processes, on the engine of ``torch.distributed``."""

from extrap_kernels.distributed.checkpoint import WorkerPoints
from extrap_kernels.distributed.ddp import LocalGradients, register_local_gradient_hook

__all__ = ["LocalGradients", "WorkerPoints", "register_local_gradient_hook"]
