"""Tensors in which DeepSpeed and FSDP1 flatten several parameters: what an optimizer may not do with them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import Parameter

if TYPE_CHECKING:
    from extrap_kernels.optimizer import ExtrapOptimizer


def is_master_of_deepspeed(param: Tensor) -> bool:
    """Whether ``param`` is a tensor that DeepSpeed has put into the optimizer in place of the model's parameters."""
    return "deepspeed" in sys.modules and not isinstance(param, Parameter)


def _is_flat(group: Mapping[str, Any], param: Tensor) -> bool:
    if getattr(param, "_fsdp_flattened", False):  # the mark of FSDP1
        return True
    return is_master_of_deepspeed(param) and param.dim() == 1 and len(group["params"]) == 1


def check_param(optimizer: Any, group: Mapping[str, Any], name: str, param: Tensor) -> None:
    """Raise RuntimeError where a flat tensor would silently be stepped in another way than its parameters."""
    if _is_flat(group, param):
        check_options(optimizer, group, name)


def check_options(optimizer: Any, group: Mapping[str, Any], name: str) -> None:
    """Raise RuntimeError for options of ``group`` that a flat tensor, called ``name``, cannot have."""
    remedy = "use FSDP2 (fully_shard), DDP or ExtrapZeroRedundancyOptimizer instead, which keep the parameters apart"
    flat = f"{name} is a part of several parameters, flattened by DeepSpeed or FSDP1"
    if optimizer.rule.SPEC.norm is not None and group.get("layer_adaptation", True):
        raise RuntimeError(
            f"{flat}: {type(optimizer).__name__} would take one trust ratio for all of them; set "
            f"layer_adaptation=False, choose ExtrapSGD or ExtrapAdamW, or {remedy}"
        )
    if group["noise"] is not None and group["noise_scale"] in ("tensor", "filter"):
        raise RuntimeError(
            f"{flat}: noise_scale={group['noise_scale']!r} would be that of all of them; choose 'absolute' or "
            f"'gradient', or {remedy}"
        )
    if group["max_grad_norm"] is not None and optimizer.gradient_norm_group is None:
        raise RuntimeError(
            f"{flat}: max_grad_norm={group['max_grad_norm']} would bound the norm of this part alone; clip with "
            "DeepSpeed's gradient_clipping, or under FSDP1 set optimizer.gradient_norm_group to its process group"
        )
    if group["extrap_norm"] is not None and optimizer.gradient_norm_group is None:
        raise RuntimeError(
            f"{flat}: extrap_norm={group['extrap_norm']!r} would be the norm of this part alone; under FSDP1 set "
            f"optimizer.gradient_norm_group to its process group, or {remedy}"
        )


def warn_of_fsdp1(optimizer: ExtrapOptimizer) -> None:
    """Warn, in a change back to train mode, that FSDP1 may not notice it."""
    if any([getattr(param, "_fsdp_flattened", False) for group in optimizer.param_groups for param in group["params"]]):
        warnings.warn(
            "FSDP1 keeps the weights of its root module after an evaluation, so the next gradient is taken at the base "
            "iterate for them; use FSDP2 (fully_shard), where train() makes it gather them anew",
            stacklevel=3,
        )


def require_connected(optimizer: ExtrapOptimizer) -> None:
    """Raise RuntimeError if a change of mode would reach DeepSpeed's masters, but not the model."""
    if optimizer.on_mode_change is not None:
        return
    if any([is_master_of_deepspeed(param) for group in optimizer.param_groups for param in group["params"]]):
        raise RuntimeError(
            "DeepSpeed has put masters of its own into the optimizer: a change of mode would not reach the model; call "
            "extrap_kernels.distributed.deepspeed.connect(engine) after deepspeed.initialize()"
        )
