"""Post-local SGD: averages the base iterates of workers that step independently."""

from __future__ import annotations

from typing import Any, Optional

import torch
import torch.distributed as dist
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager

from extrap_kernels.optimizer import ExtrapOptimizer
from extrap_kernels.state.float24 import stored_base, write_base


class PeriodicBaseAverager(PeriodicModelAverager):
    """``PeriodicModelAverager`` of the base iterates (post-local SGD, Lin et al., ICLR 2020).

    torch's averager would average the extrapolated points, which the parameters hold, and the next step would return to
    base iterates that were never averaged. Use it like torch's: alone, or in ``PostLocalSGDOptimizer``.

    Args:
        optimizer: this worker's, on every worker for the same parameters; the one inside ``PostLocalSGDOptimizer``.
        period: number of steps from one average to the next.
        warmup_steps: number of steps before the first average (default: 0).
        process_group: the processes to average over (default: None, all).
    """

    def __init__(
        self,
        optimizer: ExtrapOptimizer,
        period: int,
        warmup_steps: int = 0,
        process_group: Optional[dist.ProcessGroup] = None,
    ) -> None:
        super().__init__(period, warmup_steps, process_group)
        self._optimizer = optimizer

    def average_parameters(self, params: Any = None) -> None:
        """Count a step, and average if it is time; ``params`` is ignored, because the optimizer has them."""
        if self.step >= self.warmup_steps and (self.step - self.warmup_steps) % self.period == 0:
            average_base(self._optimizer, self.process_group)
        self.step += 1


@torch.no_grad()
def average_base(optimizer: ExtrapOptimizer, process_group: Optional[dist.ProcessGroup] = None) -> None:
    """Replace the base iterates by their mean over workers; keep each worker's difference ``y - x``.

    In train mode every worker keeps its own displacement, ``y = mean(x) + (y - x)``; in eval mode the parameters hold
    the mean. Sums are taken in the precision of the base iterate, in memory of the size of all base iterates in it.

    Args:
        optimizer: on every worker for the same parameters, which must all have been stepped or not.
        process_group: the processes to average over (default: None, all).
    """
    by_dtype: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = {}
    for param, state in optimizer.state.items():
        if "step" in state:
            base = optimizer.base_of(param)
            by_dtype.setdefault((base.device, base.dtype), []).append(param)
    for params in by_dtype.values():
        mean = torch.cat([optimizer.base_of(param).reshape(-1) for param in params])
        mean /= dist.get_world_size(process_group)
        dist.all_reduce(mean, group=process_group)
        for param, average in zip(params, mean.split([param.numel() for param in params])):
            _move_base(optimizer, param, average.view(param.shape))


def _move_base(optimizer: ExtrapOptimizer, param: torch.Tensor, average: torch.Tensor) -> None:
    base, point = optimizer.base_of(param), optimizer.state[param].get("extrapolated", param)
    displacement = point.to(base.dtype) - base
    if "base" in optimizer.state[param]:
        write_base(optimizer.state[param], average)
        average = stored_base(optimizer.state[param])  # in 24 bits, it is rounded
    if base is not point:
        point.copy_(average + displacement)
    if point is not param or base is param:
        param.copy_(average)
