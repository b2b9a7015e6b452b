"""Where a part of a tensor lies in the whole."""

import itertools

import helpers
import numpy as np
import pytest
import torch
from parts import entry_of, launch_of

from extrap_kernels.backends.cpu import CpuExecutor
from extrap_kernels.backends.reference import ReferenceExecutor
from extrap_kernels.shards import Shard, _extents
from extrap_kernels.state.layout import StateLayout

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


# Offset, extent, stride: one extent, whose positions pass 2^32 or 2^33; extents of any length, at odd positions, too.
PLACES = [(7, 999, 0), (2**32 - 301, 999, 0), (2**33 - 300, 999, 0), (2**33 - 301, 999, 0)]
PLACES += [(0, 400, 1000), (5, 1, 3), (2, 3, 2**33), (2**33 - 301, 300, 2**33 + 1)]


@pytest.mark.parametrize("offset, extent, stride", PLACES)
@pytest.mark.parametrize("noise", ["uniform", "gaussian"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=helpers.describe)
def test_random_numbers_are_those_of_the_position(native, dtype, noise, offset, extent, stride):
    """Noise, and what rounds the second moment and a base in 24 bits, of each instruction set."""
    options = {"lr": 0.1, "noise": noise, "noise_std": 1.0, "seed": 7, "state_dtype": torch.bfloat16}
    optimizer = helpers.RULES["adam"].optimizer([torch.zeros(1)], **options)
    group, shard = optimizer.param_groups[0], Shard(offset, extent, stride, 2**50, 1, (), ())
    spec = optimizer.rule.SPEC
    layout = StateLayout.of(spec, group, dtype)

    def stepped(executor_type):
        entry, state = entry_of(torch.zeros(999, dtype=dtype), 3, shard, layout)
        entry.param.grad = torch.linspace(-1, 1, 999).to(dtype)
        executor = executor_type(spec, layout, [entry], dtype)
        assert executor.bind([None, None, None, state], {}) == []
        launch = launch_of(group, executor)
        executor.square_sums(launch)
        executor.run(launch)
        return entry.param, state

    expected = stepped(ReferenceExecutor)
    for name in native.instruction_sets():
        native.select_instruction_set(name)
        helpers.assert_same_bits(stepped(CpuExecutor), expected, name)
