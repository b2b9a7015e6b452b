"""Which examples each batch has."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def minibatches(examples: int, batch_size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the numbers of the examples of ``steps`` batches.

    An epoch may end inside a batch, so every batch size sees every example. ``generator`` is drawn from when an epoch
    begins.
    """
    queue = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(queue) < batch_size:
            queue = torch.cat([queue, torch.randperm(examples, generator=generator)])
        picked, queue = queue[:batch_size], queue[batch_size:]
        yield picked
