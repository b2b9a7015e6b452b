"""The one stream of random numbers that every backend draws from."""

import helpers
import numpy as np
import oracle
import pytest
import torch

from extrap_kernels import ExtrapSGD
from extrap_kernels.reference import philox

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


def test_known_answer_of_noise():
    """Counter and key zero: what the first elements of the first parameter would have at the step count 0."""
    words = KNOWN_ANSWERS[0][2]
    noise = philox.noise("uniform", torch.arange(3), key=0, parameter=0, step=0).double()
    assert noise.tolist() == [2 * ((w >> 9) + 0.5) * 2**-23 - 1 for w in words[:3]]


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
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=helpers.describe)
def test_narrow_dtypes_round_the_same_noise(backend, dtype):
    exact, narrow = (drawn(backend, *helpers.zoo(backend, d, ["blocks"])) for d in (torch.float32, dtype))
    helpers.assert_same_bits(narrow, exact.to(dtype))


def test_noise_does_not_depend_on_the_size(backend, threads):
    """A tensor of many chunks on several threads starts with the numbers of a small one."""
    threads(2)
    large, small = (torch.nn.Parameter(torch.zeros(n, device=helpers.DEVICES[backend])) for n in (100_003, 4_099))
    helpers.assert_same_bits(drawn(backend, large)[:4_099], drawn(backend, small))


def test_gaussian_precision_of_each_instruction_set(native):
    """Over enough numbers to meet the ends of the logarithm and the zeros of sine and cosine."""
    expected = oracle.noise("gaussian", np.arange(2**19), key=3, parameter=0, step=1)
    for name in native.instruction_sets():
        native.select_instruction_set(name)
        actual = oracle.values(drawn("cpu", torch.nn.Parameter(torch.zeros(2**19)), "gaussian", seed=3))
        np.testing.assert_allclose(actual, expected, rtol=oracle.GAUSSIAN_ERROR, atol=0)


@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
def test_positions_beyond_32_bits(kind):
    """Tensors this large do not fit here, so the reference is asked directly."""
    where = {"key": 7, "parameter": 3, "step": 5}
    positions = np.array([0, 2**32 - 1, 2**32, 2**34 - 1, 2**34, 2**34 + 5, 2**40 + 2])
    actual = philox.noise(kind, torch.from_numpy(positions), **where).double().numpy()
    np.testing.assert_allclose(actual, oracle.noise(kind, positions, **where), rtol=oracle.GAUSSIAN_ERROR)
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
    assert abs((n[1:] * n[:-1]).mean()) < 4 * spread * variance  # neighbours, of one counter and of two
    uniform = distribution(n.sort().values)
    steps = torch.arange(count + 1, dtype=torch.float64, device=n.device) / count
    deviation = torch.maximum((steps[1:] - uniform).max(), (uniform - steps[:-1]).max())
    assert deviation < 1.95 * spread  # Kolmogorov-Smirnov at 0.1 %
