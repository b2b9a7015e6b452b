"""Saves what differs between data-parallel workers with torch.distributed.checkpoint."""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor

from extrap_kernels.optimizer import ExtrapOptimizer


class WorkerPoints:
    """The extrapolated points of the data-parallel workers; save it together with model and optimizer.

    ``torch.distributed.checkpoint`` saves one copy of a tensor that it takes to be the same on all workers. With local
    gradients the parameters differ (in eval mode, the state ``"extrapolated"``). Save this object as well::

        dcp.save({"model": ..., "optimizer": ..., "points": WorkerPoints(optimizer)}, checkpoint_id=folder)

    Load it after the model and the optimizer, with ``dcp.load({"points": WorkerPoints(optimizer)}, ...)``. With more
    workers than were saved, pass ``planner=DefaultLoadPlanner(allow_partial_load=True)``: the additional workers keep
    the points that came with the model, each tensor from one of the workers that were saved.

    Args:
        optimizer: optimizer of the parameters. For loading, load the model and the optimizer state first.
        rank: number of this worker (default: None, its rank in the default process group).
    """

    def __init__(self, optimizer: ExtrapOptimizer, rank: Optional[int] = None) -> None:
        self._optimizer = optimizer
        self._rank = torch.distributed.get_rank() if rank is None else rank

    def state_dict(self) -> dict[str, Tensor]:
        """Return the points by worker and position of the parameter, no copies."""
        params = [param for group in self._optimizer.param_groups for param in group["params"]]
        points = (self._optimizer.state.get(param, {}).get("extrapolated", param) for param in params)
        return {f"{self._rank}.{i}": point.detach() for i, point in enumerate(points)}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Copy loaded points to where :meth:`state_dict` reads them."""
        for name, point in self.state_dict().items():
            point.copy_(state_dict[name])
