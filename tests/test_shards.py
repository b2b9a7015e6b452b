"""Where a part of a tensor lies in the whole."""

import itertools

import numpy as np
import pytest
import torch

from extrap_kernels.shards import Shard, _extents

WHOLES = [(), (5,), (4, 6), (1, 7), (3, 4, 5), (2, 1, 3, 4)]


def parts(whole):
    """Every way to take a range of each dimension, as slices."""
    ranges = ([slice(a, b) for a in range(n + 1) for b in range(a, n + 1)] for n in whole)
    return itertools.product(*ranges)


def in_extents(positions, extent):
    """Whether they are extents of this length at a constant distance."""
    i = np.arange(len(positions))
    stride = positions[extent] - positions[0] if extent < len(positions) else 0
    return np.array_equal(positions, positions[0] + i // extent * stride + i % extent)


@pytest.mark.parametrize("whole", WHOLES, ids=str)
def test_positions_of_every_part(whole):
    numbers = np.arange(np.prod(whole, dtype=int)).reshape(whole)
    refused = 0
    for part in parts(whole):
        expected = numbers[part]
        try:
            extents = _extents(whole, expected.shape, [p.start for p in part])
        except ValueError:
            refused += 1
            assert not any(in_extents(expected.reshape(-1), extent) for extent in range(1, expected.size + 1))
            continue
        shard = Shard(*extents, numbers.size, 1, (), ())
        found = shard.positions(torch.arange(expected.size))
        assert found.tolist() == expected.reshape(-1).tolist()
    assert bool(refused) == (len(whole) > 2)


def test_gaps_in_two_dimensions_are_refused():
    with pytest.raises(
        ValueError, match=r"shape \(3, 2, 3\) of a tensor of shape \(3, 4, 5\) has gaps in more than one"
    ):
        _extents((3, 4, 5), (3, 2, 3), (0, 1, 1))
