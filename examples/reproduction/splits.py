"""What a model is trained on, chosen by and tested on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Union

import torch
from minibatches import minibatches
from torch import Tensor

# The examples of a split: tensors whose first dimension counts them.
Split = tuple[Tensor, ...]


class Dataset(NamedTuple):
    """Disjoint splits; hyperparameters are chosen on ``validation``."""

    train: Split
    validation: Split
    test: Split


def take(split: Split, picked: Union[Tensor, slice]) -> Split:
    """Return the picked examples."""
    return tuple(column[picked] for column in split)


def size(split: Split) -> int:
    """Return the number of examples."""
    return len(split[0])


def parts(split: Split, length: int) -> Iterator[Split]:
    """Yield the examples in their order, at most ``length`` at a time."""
    for first in range(0, size(split), length):
        yield take(split, slice(first, first + length))


def batches(train: Split, batch_size: int, steps: int, seed: int) -> Iterator[Split]:
    """Yield ``steps`` batches."""
    for picked in minibatches(size(train), batch_size, steps, torch.Generator().manual_seed(seed)):
        yield take(train, picked)


def partitioned(examples: Split, sizes: tuple[int, int], seed: int = 0) -> tuple[Split, Split]:
    """Return two random, disjoint parts of so many examples.

    Raises:
        ValueError: there are fewer examples.
    """
    if size(examples) < sum(sizes):
        raise ValueError(f"{sum(sizes)} examples are needed, and the files have {size(examples)}")
    order = torch.randperm(size(examples), generator=torch.Generator().manual_seed(seed))
    return take(examples, order[: sizes[0]]), take(examples, order[sizes[0] : sum(sizes)])
