"""Images: Fashion-MNIST (Xiao et al. 2017) as Debian ships it, or CIFAR-10's binary files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from reproduction.splits import Dataset, Split, partitioned, size, take

_IMAGE = 3 * 32 * 32  # bytes of one in CIFAR-10, after its label


def fashion_mnist(folder: Path, train: int, held_out: int) -> Dataset:
    """Return images of 14x14 pixels, (n, 1, 14, 14), averaged from 28x28, and labels.

    Args:
        folder: with the four ``.gz`` files.
        train: how many of the 60,000 images are trained on.
        held_out: how many others of them are for validation, and how many of the 10,000 for the test.
    """
    return _standardized(_of_fashion_mnist(folder, "train"), _of_fashion_mnist(folder, "t10k"), train, held_out)


def cifar10(folder: Path, train: int, held_out: int) -> Dataset:
    """Return the same of CIFAR-10's binary version, as images (n, 3, 32, 32), from ``data_batch_1.bin`` and so on."""
    rest = [_records(folder / f"data_batch_{i}.bin") for i in range(1, 6)]
    columns = torch.cat([images for images, _ in rest]), torch.cat([labels for _, labels in rest])
    return _standardized(columns, _records(folder / "test_batch.bin"), train, held_out)


def _of_fashion_mnist(folder: Path, name: str) -> Split:
    pixels, labels = _idx(folder, f"{name}-images-idx3-ubyte.gz"), _idx(folder, f"{name}-labels-idx1-ubyte.gz")
    return F.avg_pool2d(pixels.float().unsqueeze(1), 2), labels.long()


def _idx(folder: Path, name: str) -> Tensor:
    """Return what an IDX file of bytes holds: two zeros, the type, the number of dimensions, and each of them."""
    with gzip.open(folder / name) as file:
        content = file.read()
    dims = content[3] if content.startswith(b"\0\0\x08") and len(content) > 3 else 0
    if dims == 0:
        raise ValueError(f"{folder / name} is not an IDX file of bytes; fetch it again")
    shape = np.frombuffer(content, ">i4", dims, offset=4).tolist()
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + 4 * dims).reshape(shape).copy())


def _records(path: Path) -> Split:
    content = np.fromfile(path, np.uint8)
    if len(content) == 0 or len(content) % (1 + _IMAGE):
        raise ValueError(f"{path} is not a file of CIFAR-10's binary version: it has {len(content)} bytes")
    rows = torch.from_numpy(content.reshape(-1, 1 + _IMAGE))
    return rows[:, 1:].reshape(-1, 3, 32, 32).float(), rows[:, 0].long()


def _standardized(rest: Split, test: Split, train: int, held_out: int) -> Dataset:
    chosen, validation = partitioned(rest, (train, held_out))
    mean, std = chosen[0].mean(), chosen[0].std()

    def scaled(split: Split) -> Split:
        return (split[0] - mean) / std, split[1]

    return Dataset(scaled(chosen), scaled(validation), scaled(take(test, slice(min(held_out, size(test))))))
