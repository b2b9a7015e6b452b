"""Philox, and the noise that every backend makes of one stream of random numbers."""

import math
import sys

import helpers
import numpy as np
import oracle
import pytest
import torch

from extrap_kernels import ExtrapSGD
from extrap_kernels.reference import philox
from extrap_kernels.reference.noise import noise
from extrap_kernels.reference.random_bits import random_words

ONES = 0xFFFFFFFF
# kat_vectors of the Random123 distribution: counter, key, answer.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        0x299F31D0A4093822,
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
SEEDS = (0, 1, 2**32, 2**63 + 12345, 2**64 - 1)


@pytest.mark.parametrize("implementation", [oracle.philox4x32, philox.philox4x32], ids=["oracle", "reference"])
@pytest.mark.parametrize("counter, key, answer", KNOWN_ANSWERS)
def test_known_answers(implementation, counter, key, answer):
    assert tuple(int(word) for word in implementation(counter, key)) == answer


def drawn(backend, param, kind="uniform", *, seed=0, rank=0, before=0, step=1):
    """The bare noise that a step writes into `param`, the parameter after `before` others, at step count `step`."""
    others = [torch.nn.Parameter(param.new_zeros(5)) for _ in range(before)]
    param.detach().zero_()
    params = [*others, param]
    groups = [{"params": [p]} for p in params]  # the index counts on from group to group
    optimizer = ExtrapSGD(groups, extrapolation=None, noise=kind, noise_std=1.0, seed=seed, backend=backend)
    optimizer.rank = rank
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    if step != 1:
        optimizer.state[param]["step"].fill_(step - 1)
        optimizer.step()
    return param.detach()


@pytest.mark.parametrize("implementation", [oracle.noise, noise], ids=["oracle", "reference"])
@pytest.mark.parametrize("position", range(4))
def test_noise_of_a_known_word(implementation, position, monkeypatch):
    """By hand, from words with the halves a = 0xc000, b = 0x9000, and with b = 0xd000."""
    word = 0x9000C000 if position < 2 else 0xD000C000
    tensors = implementation is noise
    stand_in = (lambda at, **_: torch.full_like(at, word)) if tensors else (lambda at, **_: np.full_like(at, word))
    monkeypatch.setattr(sys.modules[implementation.__module__], "random_words", stand_in)
    at = torch.tensor([position]) if tensors else np.array([position])

    def drawn(kind):
        return float(implementation(kind, at, key=0, parameter=0, step=1)[0])

    half = word >> 16 if position % 2 else 0xC000
    assert drawn("uniform") == (half + 0.5 - 2**15) / 2**15
    # The angle is (0x1000 + 1/2) / 2**15 - 1/2 of a half turn, then (0x5000 + 1/2) / 2**15 - 1/2, mirrored.
    radius, half_turns = (-2 * math.log((0xC000 + 0.5) / 2**16)) ** 0.5, (word >> 16 & 0x7FFF) + 0.5
    angle = (half_turns / 32768 - 0.5) * math.pi
    expected = math.sin(angle) if position % 2 else -math.cos(angle)
    assert drawn("gaussian") == pytest.approx(radius * expected, abs=oracle.GAUSSIAN_ERROR)


@pytest.mark.parametrize("layout", helpers.LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64], ids=helpers.describe)
@pytest.mark.parametrize("kind, tolerance", [("uniform", 0), ("gaussian", oracle.GAUSSIAN_ERROR)])
def test_noise_is_that_of_the_contract(backend, kind, tolerance, dtype, layout):
    """Every layout has its positions: in memory for dense tensors, row-major for others."""
    (param,) = helpers.zoo(backend, dtype, [layout])
    for k, seed in enumerate(SEEDS):
        where = {"key": (seed + k) % 2**64, "parameter": k, "step": 1000 * k + 1}
        expected = oracle.noise(kind, oracle.positions(param), **where)
        actual = oracle.values(drawn(backend, param, kind, seed=seed, rank=k, before=k, step=1000 * k + 1))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=helpers.describe)
def test_narrow_dtypes_round_the_same_noise(backend, dtype):
    exact, narrow = (drawn(backend, *helpers.zoo(backend, d, ["blocks"])) for d in (torch.float32, dtype))
    helpers.assert_same_bits(narrow, exact.to(dtype))


def test_noise_does_not_depend_on_the_size(backend, threads):
    """A tensor of many chunks on several threads starts with the numbers of a small one."""
    threads(2)
    large, small = (torch.nn.Parameter(torch.zeros(n, device=helpers.DEVICES[backend])) for n in (100_003, 4_099))
    helpers.assert_same_bits(drawn(backend, large)[:4_099], drawn(backend, small))


def every_half(count):
    """Gaussian noise of so many elements, in whose words each lower and each upper half occurs."""
    where = {"key": 3, "parameter": 0, "step": 1}
    positions = torch.arange(count)
    words = random_words(positions[: count // 2], **where)
    assert all(len(half.unique()) == 2**16 for half in (words & 0xFFFF, words >> 16))
    return positions, noise("gaussian", positions, **where)


def test_gaussian_bits_of_each_instruction_set(native):
    """Of all radii and all points of the circle: some processors fuse a multiply-add, others go by way of double."""
    positions, expected = every_half(2**21)
    for name in native.instruction_sets():
        native.select_instruction_set(name)
        actual = drawn("cpu", torch.nn.Parameter(torch.zeros(len(positions))), "gaussian", seed=3)
        helpers.assert_same_bits(actual, expected)


def test_gaussian_precision():
    positions, actual = every_half(2**21)
    expected = oracle.noise("gaussian", positions.numpy(), key=3, parameter=0, step=1)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=oracle.GAUSSIAN_ERROR)


@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
def test_positions_beyond_32_bits(kind):
    """Tensors this large do not fit here, so the reference is asked directly."""
    where = {"key": 7, "parameter": 3, "step": 5}
    positions = np.array([0, 2**32 - 1, 2**32, 2**33 - 1, 2**33, 2**33 + 5, 2**40 + 2])
    actual = noise(kind, torch.from_numpy(positions), **where).double().numpy()
    np.testing.assert_allclose(actual, oracle.noise(kind, positions, **where), rtol=0, atol=oracle.GAUSSIAN_ERROR)
    assert len(set(actual)) == len(positions)


@pytest.mark.parametrize(
    "kind, variance, fourth_moment, distribution",
    [
        ("uniform", 1 / 3, 1 / 5, lambda n: (n + 1) / 2),
        ("gaussian", 1.0, 3.0, torch.special.ndtr),
    ],
)
def test_statistics(backend, kind, variance, fourth_moment, distribution):
    count = 2**18
    param = torch.nn.Parameter(torch.empty(count, dtype=torch.float64, device=helpers.DEVICES[backend]))
    n = drawn(backend, param, kind, seed=42)
    spread = count**-0.5
    assert abs(n.mean()) < 4 * spread * variance**0.5
    assert abs(n.square().mean() - variance) < 4 * spread * (fourth_moment - variance**2) ** 0.5
    for distance in (1, 2, 3, 64):  # neighbours, of one word and of two
        assert abs((n[distance:] * n[:-distance]).mean()) < 4 * spread * variance
        # Of their squares, whose variance is that of n**4.
        squares = n.square() - variance
        limit = 4 * spread * (fourth_moment - variance**2)
        assert abs((squares[distance:] * squares[:-distance]).mean()) < limit
    uniform = distribution(n.sort().values)
    steps = torch.arange(count + 1, dtype=torch.float64, device=n.device) / count
    deviation = torch.maximum((steps[1:] - uniform).max(), (uniform - steps[:-1]).max())
    assert deviation < 1.95 * spread  # Kolmogorov-Smirnov at 0.1 %
