"""The random words that noise and stochastic rounding draw from."""

import oracle
import pytest
import torch

from extrap_kernels.reference.philox import philox4x32
from extrap_kernels.reference.random_bits import random_words, rounding_words

BASE = {"key": 1, "parameter": 0, "step": 1}
OTHER_STREAMS = [{"step": 2}, {"parameter": 1}, {"key": 2}, {"parameter": 0x80000000}]


def model_word(position, key, parameter, step):
    """The hash of docs/design.md, in Python's integers."""
    k = [int(w) for w in philox4x32((0, 0, parameter, step), key)]
    low, high = position & 0xFFFFFFFF, position >> 32
    h = (low + k[0] + high * 0x9E3779B9) & 0xFFFFFFFF
    h ^= h >> 16
    h = (h * 0x7FEB352D) & 0xFFFFFFFF
    h ^= h >> 15
    h ^= k[1]
    h = (h * 0x846CA68B) & 0xFFFFFFFF
    return h ^ (h >> 16)


def test_words_are_those_of_the_definition():
    positions = torch.tensor([0, 1, 2, 4096, 2**31, 2**32 - 1, 2**32, 2**40 + 7, 2**62])
    for key, parameter, step in ((0, 0, 1), (2**63 + 5, 3, 7), (2**64 - 1, 2**31 - 1, 2**24)):
        where = {"key": key, "parameter": parameter, "step": step}
        expected = [model_word(p, **where) for p in positions.tolist()]
        assert random_words(positions, **where).tolist() == expected
        assert oracle.random_words(positions.numpy(), **where).tolist() == expected


def test_rounding_has_a_stream_of_its_own():
    bits = rounding_words(torch.arange(64), seed=1, parameter=5, step=3) >> 16
    assert bits.tolist() == [model_word(p, 1, 5 + 2**31, 3) >> 16 for p in range(64)]


def words_of(count, **stream):
    return random_words(torch.arange(count), **{**BASE, **stream})


def assert_uniform(cells, number):
    """Chi-squared of `number` cells, at 5 standard deviations."""
    counts = torch.bincount(cells, minlength=number).double()
    expected = len(cells) / number
    assert abs(float(((counts - expected) ** 2 / expected).sum()) - (number - 1)) < 5 * (2 * number) ** 0.5


@pytest.mark.parametrize("key", [1, 2, 2**40])
def test_bytes_are_uniform(key):
    words = words_of(1 << 18, key=key)
    for shift in (0, 8, 16, 24):
        assert_uniform(words >> shift & 255, 256)


@pytest.mark.parametrize("distance", [1, 2, 3, 16, 256, 4096])
def test_words_at_a_distance_are_independent(distance):
    """Of both halves, by their upper and by their lower bits."""
    words = words_of(1 << 18)
    for shift in (0, 11, 16, 27):
        five_bits = words >> shift & 31
        assert_uniform(five_bits[:-distance] * 32 + five_bits[distance:], 1024)
    a = words.double() / 2**32 - 0.5
    assert abs(float((a[:-distance] * a[distance:]).mean() * 12)) < 5 / 512


def test_halves_of_a_word_are_independent():
    words = words_of(1 << 18)
    for low, high in ((11, 27), (0, 27), (11, 16), (0, 16)):
        assert_uniform((words >> low & 31) * 32 + (words >> high & 31), 1024)


@pytest.mark.parametrize("other", OTHER_STREAMS, ids=str)
def test_streams_are_independent(other):
    words, others = words_of(1 << 18), words_of(1 << 18, **other)
    for shift in (0, 11, 16, 27):
        assert_uniform((words >> shift & 31) * 32 + (others >> shift & 31), 1024)


def test_steps_of_one_element_are_independent():
    """What a parameter sees in the course of a training."""
    position = torch.tensor([12345])
    words = torch.cat([random_words(position, **{**BASE, "step": step}) for step in range(1, 4097)])
    for shift in (0, 12, 16, 28):
        four_bits = words >> shift & 15
        assert_uniform(four_bits[:-1] * 16 + four_bits[1:], 256)
