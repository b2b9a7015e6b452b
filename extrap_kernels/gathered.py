"""Whole parameters that FSDP2 keeps after a forward pass: out of date once the shards have changed."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from torch import Tensor

from extrap_kernels.shards import is_dtensor


def free(params: Iterable[Tensor]) -> None:
    """Make FSDP2 gather its parameters anew in the next forward pass, if some of ``params`` are shards.

    After a forward pass without a backward pass, as in evaluation, the root module keeps the parameters that it has
    gathered and uses them again. It cannot know that the shards have changed since.
    """
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is None or not any(is_dtensor(param) for param in params):
        return
    from torch.distributed._composable_state import _module_state_mapping  # no public list of modules under FSDP2

    for module in list(_module_state_mapping):
        if isinstance(module, fsdp.FSDPModule):
            module.reshard()
