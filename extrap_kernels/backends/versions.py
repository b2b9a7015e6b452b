"""autograd's version counters of the tensors that a kernel writes."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor


def incrementer(tensors: list[Tensor]) -> Callable[[], None]:
    """Return what increments the counters: autograd then knows that what it saved of the tensors is out of date."""
    try:
        from extrap_kernels import _C
    except ImportError:
        return functools.partial(torch.autograd.graph.increment_version, tensors)
    return _C.VersionCounters(tensors).increment
