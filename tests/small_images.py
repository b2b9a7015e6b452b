"""Files in the form of Fashion-MNIST's."""

import gzip
import struct

import numpy as np


def write_idx(path, values):
    header = struct.pack(f">BBBB{values.ndim}i", 0, 0, 8, values.ndim, *values.shape)
    with gzip.open(path, "wb") as file:
        file.write(header + values.tobytes())


def write_fashion(folder, train, test):
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, count in (("train", train), ("t10k", test)):
        labels = random.integers(0, 10, count, dtype=np.uint8)
        # A class is a brightness: something to learn.
        write_idx(
            folder / f"{name}-images-idx3-ubyte.gz", np.full((count, 28, 28), 20, np.uint8) * labels[:, None, None]
        )
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", labels)
