"""scikit-learn's digits: 1,797 handwritten digits of 8x8 pixels, which come with the library."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from minibatches import minibatches
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional as F


class Split(NamedTuple):
    """Images of shape (n, 1, 8, 8), in torch's default dtype, and labels, int64."""

    images: Tensor
    labels: Tensor


class Digits(NamedTuple):
    """Disjoint splits with the same share of each digit; hyperparameters are chosen on ``validation``."""

    train: Split
    validation: Split
    test: Split


@functools.cache
def load() -> Digits:
    """Return 1,077 images to train on, 270 to validate and 450 to test, standardised with the training statistics."""
    pixels, labels = load_digits(return_X_y=True)
    rest, test, rest_labels, test_labels = train_test_split(
        pixels, labels, test_size=450, stratify=labels, random_state=0
    )
    train, validation, train_labels, validation_labels = train_test_split(
        rest, rest_labels, test_size=270, stratify=rest_labels, random_state=0
    )
    mean, std = train.mean(), train.std()

    def split(pixels: Tensor, labels: Tensor) -> Split:
        images = torch.as_tensor((pixels - mean) / std, dtype=torch.get_default_dtype()).view(-1, 1, 8, 8)
        return Split(images, torch.as_tensor(labels, dtype=torch.int64))

    return Digits(split(train, train_labels), split(validation, validation_labels), split(test, test_labels))


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return each image moved by up to one pixel in either direction; background comes in at the border."""
    count, _, height, width = images.shape
    padded = F.pad(images, (1, 1, 1, 1), value=float(images.min()))
    top, left = torch.randint(3, (2, count, 1), generator=generator)
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    return padded[torch.arange(count)[:, None, None], 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)


def batches(train: Split, batch_size: int, steps: int, seed: int) -> Iterator[Split]:
    """Yield ``steps`` augmented batches."""
    generator = torch.Generator().manual_seed(seed)
    for picked in minibatches(len(train.labels), batch_size, steps, generator):
        yield Split(shifted(train.images[picked], generator), train.labels[picked])
