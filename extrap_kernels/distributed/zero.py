"""ZeroRedundancyOptimizer with train and eval mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

import torch
from torch.distributed.optim import ZeroRedundancyOptimizer

from extrap_kernels.optimizer import ExtrapOptimizer


class ExtrapZeroRedundancyOptimizer(ZeroRedundancyOptimizer):
    """``torch.distributed.optim.ZeroRedundancyOptimizer`` around an optimizer of this package.

    Each process steps its share of the parameters and sends them to the others. So all workers share one extrapolated
    point, along the averaged gradient. This class adds train and eval mode on all processes at once, and
    ``max_grad_norm`` over all parameters. The noise of a parameter depends on the process that steps it.

    Args:
        params: all parameters or param groups, the same on all processes.
        optimizer_class: an optimizer of this package.
        **options: those of ``ZeroRedundancyOptimizer`` and of ``optimizer_class``; ``overlap_with_ddp`` must be off.

    Raises:
        TypeError: ``optimizer_class`` does not extrapolate.
        ValueError: ``extrapolation="extragradient"``, whose first half would move each parameter on one process only.
    """

    def __init__(self, params: Any, optimizer_class: type[ExtrapOptimizer], **options: Any) -> None:
        if not issubclass(optimizer_class, ExtrapOptimizer):
            raise TypeError(f"optimizer_class is {optimizer_class.__name__}; it must be one of extrap_kernels")
        if options.get("overlap_with_ddp"):
            raise ValueError("Invalid overlap_with_ddp value: True; it needs a functional optimizer of torch")
        super().__init__(params, optimizer_class, **options)
        self.optim.gradient_norm_group = self.process_group
        if any(group["extrapolation"] == "extragradient" for group in self.optim.param_groups):
            raise ValueError(
                "Invalid extrapolation value: 'extragradient' under ZeroRedundancyOptimizer, which sends parameters "
                "only after whole steps; choose 'past_gradient'"
            )

    def eval(self) -> None:
        """Put the base iterate into the parameters of all processes; call it on all of them."""
        self.train(False)

    def train(self, mode: bool = True) -> None:
        """Put the extrapolated point back into the parameters of all processes; ``train(False)`` is :meth:`eval`."""
        self.optim.train(mode)
        self._sync_param_groups(self.optim.param_groups, self.param_groups)  # type: ignore[attr-defined, unused-ignore]
        self._sync_params()  # type: ignore[attr-defined, unused-ignore]

    @contextmanager
    def base_parameters(self) -> Iterator[None]:
        """Context manager: the parameters hold the base iterate inside the block, and what they held after it."""
        was_training: bool = self.optim.param_groups[0]["train_mode"]
        self.eval()
        try:
            yield
        finally:
            self.train(was_training)

    @property
    def grad_norm(self) -> Optional[torch.Tensor]:
        """Norm of all gradients in the last step, as in :class:`extrap_kernels.optimizer.ExtrapOptimizer`."""
        return self.optim.grad_norm
