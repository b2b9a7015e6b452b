"""Moments in bfloat16: the codec, its random bits, and that training with it follows training without."""

import math
import struct

import helpers
import pytest
import torch
from parts import stepped_like_parts

from extrap_kernels import ExtrapAdam, ExtrapSGD, backends
from extrap_kernels.reference.random_bits import rounding_words
from extrap_kernels.state.formats import STATE_FORMATS

BFLOAT16 = STATE_FORMATS[torch.bfloat16]


def pattern(value):
    return struct.unpack("<I", struct.pack("<f", value))[0]


def number(bits):
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def model_encode(value, random):
    """Stochastic rounding in plain integers: the upper half of the pattern of a float32 plus 16 random bits."""
    bits = pattern(value)
    if math.isnan(value):
        return math.nan
    if math.isinf(value):
        return value
    return number((bits + random) & 0xFFFF0000)


def test_encoding_is_that_of_the_integer_model():
    values = [
        0.0,
        1.0,
        1.0 + 2**-9,
        3.14159,
        1e-45,
        1e-38,
        6.5e-39,
        65504.0,
        3.3e38,
        number(0x7F7FFFFF),
        math.inf,
        math.nan,
    ]
    bits = [0, 1, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF]
    for value in values:
        for random in bits:
            stored = BFLOAT16.unsigned.encode(torch.tensor([value]), torch.tensor([random], dtype=torch.int32))
            expected = model_encode(value, random)
            actual = stored.float().item()
            assert stored.dtype == torch.bfloat16
            assert actual == expected or (math.isnan(actual) and math.isnan(expected)), (value, random)


def test_every_stored_number_comes_back_whatever_the_random_bits():
    every = (
        torch.arange(0x8000, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    )  # second moments are not negative
    for random in (0, 1, 0x8000, 0xFFFF):
        again = BFLOAT16.unsigned.encode(every.float(), torch.full(every.shape, random, dtype=torch.int32))
        same = (again.view(torch.int16) == every.view(torch.int16)) | (again.isnan() & every.isnan())
        assert same.all()


def test_rounding_is_unbiased():
    """The mean over many positions is the number itself."""
    bits = (rounding_words(torch.arange(1 << 16), seed=1, parameter=0, step=1) >> 16).to(torch.int32)
    for value in (1.003, 1.9999, 1e-20, 0.3):
        stored = BFLOAT16.unsigned.encode(torch.full((1 << 16,), value), bits).double()
        ulp = 2.0 ** (math.floor(math.log2(value)) - 7)
        assert abs(float(stored.mean()) - value) < 5 * ulp / 2 / 256


def steps_of(optimizer, params, scale, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for p in params:
            p.grad = (torch.randn(p.shape, generator=generator) * scale).to(p.device, p.dtype)
        optimizer.step()


def test_second_moments_follow_gradients_that_shrink(backend):
    """Rounded to nearest, the moving average would stop at several times its value."""
    roots = []
    for state_dtype in (torch.float32, torch.bfloat16):
        param = torch.nn.Parameter(torch.zeros(4096, device=helpers.DEVICES[backend]))
        optimizer = ExtrapAdam([param], betas=(0.9, 0.99), state_dtype=state_dtype, backend=backend)
        steps_of(optimizer, [param], 1.0, 200)
        steps_of(optimizer, [param], 0.1, 500, seed=1)
        roots.append(optimizer.state[param]["exp_avg_sq"].double().sqrt().mean())
    assert abs(float(roots[1] / roots[0]) - 1) < 0.03


RULES = [
    ("sgd", {"momentum": 0.9, "nesterov": True}),
    ("adam", {}),
    ("adamw", {}),
    ("lars", {"momentum": 0.9}),
    ("lamb", {}),
]
FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def trained(backend, rule, options, dtype, names=tuple(helpers.LAYOUTS), steps=3, **more):
    params = helpers.zoo(backend, dtype, names)
    optimizer = helpers.RULES[rule].optimizer(params, lr=0.1, backend=backend, **options, **more)
    helpers.train(optimizer, steps)
    return optimizer


@pytest.mark.parametrize("rule, options", RULES, ids=[rule for rule, _ in RULES])
@pytest.mark.parametrize("dtype", FLOATS, ids=helpers.describe)
@pytest.mark.parametrize("perturbation", helpers.FEW_PERTURBATIONS[:4] + [helpers.EXTRAGRADIENT], ids=helpers.describe)
@pytest.mark.parametrize("backend", helpers.FAST_BACKENDS)
def test_the_same_bits_as_the_reference(backend, rule, options, dtype, perturbation):
    if rule in ("lars", "lamb"):
        pytest.skip("norms are not equal to the bit in any format")
    results = [
        helpers.snapshot(trained(b, rule, options, dtype, state_dtype=torch.bfloat16, **perturbation))
        for b in ("reference", backend)
    ]
    helpers.assert_same_bits(*results)


@pytest.mark.parametrize("rule, options", RULES, ids=[rule for rule, _ in RULES])
def test_one_step_is_that_of_float32_moments(backend, rule, options):
    """The update takes the moments before they are rounded."""
    exact, rounded = (
        trained(backend, rule, options, torch.float32, steps=1, state_dtype=state_dtype)
        for state_dtype in (torch.float32, torch.bfloat16)
    )
    helpers.assert_same_bits(helpers.snapshot(exact)[0], helpers.snapshot(rounded)[0])
    for p, q in zip(helpers.parameters_of(exact), helpers.parameters_of(rounded)):
        for name, value in exact.state[p].items():
            if name not in ("step", "base") and value.numel():
                stored = rounded.state[q][name]
                assert stored.dtype == torch.bfloat16
                error = (stored.double() - value.double()).abs()
                assert (error <= value.double().abs() * 2.0**-7 + 1e-40).all()


ROWS = (lambda n: slice(0, n // 3), lambda n: slice(n // 3, n))
COLUMNS = (lambda n: slice(0, n // 4), lambda n: slice(n // 4, n))


@pytest.mark.parametrize("options", [{}, {"noise": "uniform"}], ids=helpers.describe)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=helpers.describe)
@pytest.mark.parametrize("backend", helpers.BACKENDS)
def test_parts_are_rounded_as_the_whole(backend, dtype, options):
    """By the position in the whole tensor, whoever holds the part."""
    wholes = [
        torch.nn.Parameter(torch.linspace(-1, 1, n).view(-1, 9).to(helpers.DEVICES[backend], dtype)) for n in (63, 4500)
    ]
    optimizer = ExtrapAdam(wholes, lr=0.1, state_dtype=torch.bfloat16, backend=backend, **options)
    optimizer.rank = 0
    for part in stepped_like_parts(optimizer, backends.BACKENDS[backend].executor(), ROWS, COLUMNS):
        for entry, state, whole, cut in zip(part.entries, part.states, wholes, part.cuts):
            helpers.assert_same_bits(entry.param, whole.detach()[cut])
            for name in set(state) - {"step"}:
                helpers.assert_same_bits(state[name], optimizer.state[whole][name][cut])


@pytest.mark.parametrize("threads_", [1, 3])
def test_the_number_of_threads_does_not_matter(threads, threads_):
    threads(1)
    names = ("blocks", "columns")
    one = helpers.snapshot(trained("cpu", "adam", {}, torch.bfloat16, names, state_dtype=torch.bfloat16))
    threads(threads_)
    helpers.assert_same_bits(
        helpers.snapshot(trained("cpu", "adam", {}, torch.bfloat16, names, state_dtype=torch.bfloat16)), one
    )


def test_state_of_another_format_loads(backend):
    """Moments in float32 are rounded to nearest; those in bfloat16 are exact in float32."""
    for saved_dtype, dtype in ((torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)):
        optimizer = trained(backend, "adam", {}, torch.float32, ("matrix",), state_dtype=saved_dtype)
        resumed = trained(backend, "adam", {}, torch.float32, ("matrix",), state_dtype=dtype)
        state_dict = optimizer.state_dict()
        for group in state_dict["param_groups"]:
            group["state_dtype"] = dtype
        resumed.load_state_dict(state_dict)
        for saved, loaded in zip(optimizer.state.values(), resumed.state.values()):
            assert loaded["exp_avg_sq"].dtype == dtype
            assert torch.equal(loaded["exp_avg_sq"], saved["exp_avg_sq"].to(dtype))


def test_the_format_changes_in_mid_run(backend):
    optimizer = trained(backend, "adam", {}, torch.float32, ("matrix",))
    (param,) = helpers.parameters_of(optimizer)
    for dtype in (torch.bfloat16, torch.float32):
        optimizer.param_groups[0]["state_dtype"] = dtype
        helpers.train(optimizer, steps=1)
        assert optimizer.state[param]["exp_avg"].dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64], ids=helpers.describe)
def test_double_and_complex_parameters_are_refused(backend, dtype):
    with pytest.raises(
        ValueError, match=r"state_dtype value: torch.bfloat16 for a parameter of torch\.(float64|complex64)"
    ):
        trained(backend, "sgd", {"momentum": 0.9}, dtype, ("matrix",), state_dtype=torch.bfloat16)


def test_an_unknown_format_is_named():
    with pytest.raises(ValueError, match=r"Invalid state_dtype value: torch.float16; choose one of"):
        ExtrapSGD([torch.nn.Parameter(torch.ones(2))], state_dtype=torch.float16)


def test_training_follows_float32_moments():
    """A quadratic with noisy gradients: both formats end equally near the minimum."""
    losses = []
    for state_dtype in (torch.float32, torch.bfloat16):
        param = torch.nn.Parameter(torch.ones(1024))
        optimizer = ExtrapAdam([param], lr=1e-2, state_dtype=state_dtype)
        generator = torch.Generator().manual_seed(0)
        for _ in range(400):
            param.grad = param.detach() + 0.1 * torch.randn(1024, generator=generator)
            optimizer.step()
        losses.append(float(optimizer.base_of(param).square().mean()))
    assert losses[1] < 1.2 * losses[0] + 1e-6
