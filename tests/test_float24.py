"""The base iterate of 16-bit parameters in 24 bits: the format, every backend, and what may change a byte of it."""

import copy
import math
import struct

import helpers
import pytest
import torch
import torch.distributed as dist

from extrap_kernels import ExtrapAdamW, ExtrapSGD
from extrap_kernels.distributed.averaging import average_base
from extrap_kernels.reference.random_bits import rounding_words
from extrap_kernels.state.blocks import takes_blocks
from extrap_kernels.state.float24 import BASE_LOW, SPLIT, stored_base

HALVES = (torch.bfloat16, torch.float16)
COMPACT = (torch.bfloat16, torch.uint8)


# --- The format -------------------------------------------------------------------------------------------------------


def pattern(value):
    return struct.unpack("<I", struct.pack("<f", value))[0]


def number(bits):
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def model_split(bits, random):
    """The upper half and the low byte of a float32, in plain integers."""
    exponent, mantissa = bits >> 23 & 255, bits & 0x7FFFFF
    if exponent == 255:
        return (0x7FC0 if mantissa else bits >> 16), 0
    kept = (bits + random) // 256 * 256
    high = (kept + 0x8000) // 0x10000
    low = (kept - high * 0x10000) // 256
    assert -128 <= low <= 127
    return high, low % 256


def model_join(high, low):
    return (high * 0x10000 + (low - 256 if low >= 128 else low) * 256) % 2**32


def split(values, random):
    """Upper halves and low bytes of float32 numbers, as ints."""
    high, low = torch.empty_like(values, dtype=torch.bfloat16), torch.empty_like(values, dtype=torch.uint8)
    SPLIT.store(high, values, random, low)
    return high.view(torch.int16).long() & 0xFFFF, low.long()


def bits_of(values):
    return values.view(torch.int32).long() & 0xFFFFFFFF


def every_high():
    return torch.arange(0x10000).to(torch.int16)


def is_canonical(high, joined):
    """Whether the two are what a number is stored as: all NaN but one, and numbers below zero's, are not."""
    return ~joined.isnan() | (bits_of(joined) == 0x7FC00000)


SPECIALS = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 1.2e-38, -1e-40, 65504.0, 1 + 2**-15, 1 + 2**-16, 1 + 2**-23, 3.14159]
SPECIALS += [
    number(bits) for bits in (0x7F7FFFFF, 0xFF7FFFFF, 0x7F7F7FFF, 0x3F7F8000, 0x3F7F7FFF, 0x007FFFFF, 0x80007FFF)
]
SPECIALS += [math.inf, -math.inf, math.nan, number(0xFFC12345)]


@pytest.mark.parametrize("random", [0, 1, 0x7F, 0x80, 0xFE, 0xFF, None])
def test_numbers_are_stored_as_in_the_integer_model(random):
    generator = torch.Generator().manual_seed(0)
    values = torch.cat([torch.tensor(SPECIALS), torch.randn(500, generator=generator)])
    # Other bits of a word do not count.
    words = None if random is None else torch.full(values.shape, random | 0xABCDEF00)
    high, low = split(values, words)
    for value, h, l in zip(bits_of(values).tolist(), high.tolist(), low.tolist()):
        assert (h, l) == model_split(value, 0x80 if random is None else random), hex(value)
    joined = SPLIT.decode(high.to(torch.int16).view(torch.bfloat16), torch.float32, low.to(torch.uint8))
    assert bits_of(joined).tolist() == [model_join(h, l) for h, l in zip(high.tolist(), low.tolist())]


def test_all_that_is_stored_comes_back_whatever_the_random_bits():
    """Every upper half with every low byte."""
    high = every_high()
    for low in range(256):
        bytes_ = torch.full(high.shape, low, dtype=torch.uint8)
        joined = SPLIT.decode(high.view(torch.bfloat16), torch.float32, bytes_)
        kept = is_canonical(high, joined)
        assert int((~kept).sum()) <= 512
        for random in (None, 0, 0x80, 0xFF):
            again, again_low = split(joined, None if random is None else torch.full(high.shape, random))
            assert torch.equal(again[kept], (high.long() & 0xFFFF)[kept]) and (again_low[kept] == low).all()
            assert (again[~kept] == 0x7FC0).all() and (again_low[~kept] == 0).all()


def test_the_upper_half_is_the_number_in_bfloat16():
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    high, _ = split(values, None)
    alone = high.to(torch.int16).view(torch.bfloat16).double()
    assert ((alone - values.double()).abs() <= values.double().abs() * (2.0**-8 + 2.0**-16)).all()


def test_rounding_is_unbiased():
    words = rounding_words(torch.arange(1 << 16), seed=1, parameter=0, step=1)
    for value in (1.0000037, 1.9999, 1e-20, -0.3):
        mean = float(SPLIT.rounded(torch.full((1 << 16,), value), words).double().mean())
        place = 2.0 ** (math.floor(math.log2(abs(value))) - 15)
        assert abs(mean - torch.tensor(value).double()) < 5 * place / 2 / 256


# --- Steps ------------------------------------------------------------------------------------------------------------


def matrix(backend, dtype, values=None, shape=(64, 64)):
    values = torch.linspace(-1, 1, math.prod(shape)).view(shape) if values is None else values
    return torch.nn.Parameter(values.to(helpers.DEVICES[backend], dtype))


def planes(optimizer, param):
    state = optimizer.state[param]
    return [state["base"].clone(), state[BASE_LOW].clone()]


def stepped(backend, dtype, kind=ExtrapAdamW, steps=2, **options):
    param = matrix(backend, dtype)
    optimizer = kind([param], lr=0.1, backend=backend, **{"state_dtype": torch.bfloat16, **options})
    helpers.train(optimizer, steps)
    return optimizer, param


@pytest.mark.parametrize("low_bytes", [(0, 1, 77, 127, 128, 255), pytest.param(range(256), marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", HALVES, ids=helpers.describe)
def test_a_step_by_nothing_leaves_every_number(backend, dtype, low_bytes):
    """Every upper half, through every backend: read, rounded, stored, and rounded to the parameter."""
    if backend != "cpu" and len(low_bytes) == 256:
        pytest.skip("for the native kernels, which take no minutes")
    high = every_high().view(torch.bfloat16)
    for low in low_bytes:
        param = matrix(backend, dtype, torch.zeros(high.shape))
        optimizer = ExtrapSGD([param], lr=0.0, backend=backend, state_dtype=torch.bfloat16)
        state = optimizer.prepare_state(param)
        state["base"].copy_(high)
        state[BASE_LOW].fill_(low)
        joined = stored_base(state).cpu()
        param.grad = torch.zeros_like(param)
        optimizer.step()
        kept = is_canonical(high, joined)
        after = state["base"].cpu().view(torch.int16).long() & 0xFFFF
        assert torch.equal(after[kept], (every_high().long() & 0xFFFF)[kept]) and (after[~kept] == 0x7FC0).all()
        assert (state[BASE_LOW].cpu() == torch.where(kept, low, 0)).all()
        helpers.assert_same_bits(param.detach().cpu(), joined.to(dtype))


@pytest.mark.parametrize("dtype", HALVES, ids=helpers.describe)
@pytest.mark.parametrize("special", [math.inf, -math.inf, math.nan])
def test_numbers_that_are_not_finite_are_so_on_every_backend(backend, dtype, special):
    results = []
    for name in ("reference", backend):
        param = matrix(name, dtype)
        optimizer = ExtrapSGD([param], lr=0.1, backend=name, state_dtype=torch.bfloat16)
        for t in range(2):
            helpers.set_gradients([param], t)
            param.grad[3, 5] = special if t == 0 else 1.0
            optimizer.step()
        results.append(
            [part.cpu().view(bits) for part, bits in zip(planes(optimizer, param), (torch.int16, torch.uint8))]
        )
        assert not torch.isfinite(stored_base(optimizer.state[param])[3, 5])
    assert all(torch.equal(a, b) for a, b in zip(*results))


def test_small_updates_do_not_stall(backend):
    """Of 3e-6 at 1, where rounding to nearest would move nothing."""
    assert float(SPLIT.rounded(torch.tensor(1 - 3e-6), None)) == 1.0
    steps = 400 if backend in ("cpu", "reference", "cuda") else 60
    param = matrix(backend, torch.bfloat16, torch.ones(64, 64))
    optimizer = ExtrapSGD([param], lr=3e-6, backend=backend, state_dtype=torch.bfloat16)
    for _ in range(steps):
        param.grad = torch.ones_like(param)
        optimizer.step()
    moved = 1 - float(optimizer.base_of(param).double().mean())
    deviation = 2.0**-16 * (0.2 * 0.8 * steps / 4096) ** 0.5
    assert abs(moved - 3e-6 * steps) < 5 * deviation


@pytest.mark.parametrize("options", [{}, {"noise": "uniform"}, {"extrapolation": None}], ids=helpers.describe)
@pytest.mark.parametrize("state_dtype", COMPACT, ids=helpers.describe)
def test_it_is_the_float32_step_rounded_by_its_word(backend, state_dtype, options):
    """And y is made of what is stored."""
    optimizer, param = stepped(backend, torch.bfloat16, state_dtype=state_dtype, **options)
    wide = ExtrapAdamW([matrix(backend, torch.bfloat16, param.detach().clone())], lr=0.1, backend=backend, **options)
    wide.load_state_dict(optimizer.float32_state_dict())
    (other,) = helpers.parameters_of(wide)
    for each in (optimizer, wide):
        helpers.train(each, 1, seed=5)
    words = rounding_words(torch.arange(64 * 64).view(64, 64), seed=0, parameter=0, step=3)
    base = optimizer.base_of(param).cpu()
    helpers.assert_same_bits(base, SPLIT.rounded(wide.base_of(other).cpu(), words))
    if options.get("extrapolation", "") is None:
        helpers.assert_same_bits(param.detach().cpu(), base.to(torch.bfloat16))


@pytest.mark.parametrize("state_dtype", [torch.float32, *COMPACT], ids=helpers.describe)
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=helpers.describe)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_which_parameters_have_it(backend, dtype, state_dtype, momentum):
    params = [matrix(backend, dtype), matrix(backend, dtype, shape=(4, 5)), matrix(backend, dtype, shape=(4096,))]
    optimizer = ExtrapSGD(params, lr=0.1, momentum=momentum, backend=backend, state_dtype=state_dtype)
    helpers.train(optimizer, 1)
    for param in params:
        compact = state_dtype == torch.bfloat16 or (state_dtype == torch.uint8 and takes_blocks(param))
        state, has_24_bits = optimizer.state[param], compact and dtype != torch.float32
        assert state["base"].dtype == (torch.bfloat16 if has_24_bits else torch.float32)
        assert (BASE_LOW in state) is has_24_bits
        if has_24_bits:
            assert state[BASE_LOW].dtype == torch.uint8 and state[BASE_LOW].stride() == param.stride()


# --- What changes no byte, and what does ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", HALVES, ids=helpers.describe)
def test_half_an_extragradient_step_changes_no_byte(backend, dtype):
    optimizer, param = stepped(backend, dtype, extrapolation="extragradient")
    before, held = planes(optimizer, param), param.detach().clone()
    helpers.set_gradients([param], 9)
    optimizer.extrapolate()
    assert not torch.equal(param, held)
    helpers.assert_same_bits(planes(optimizer, param), before)
    optimizer.cancel_extrapolation()
    helpers.assert_same_bits(param.detach(), held)
    helpers.assert_same_bits(planes(optimizer, param), before)


@pytest.mark.parametrize("options", [{}, {"extrapolation": None}, {"noise": "uniform"}], ids=helpers.describe)
def test_a_skipped_step_and_an_absent_gradient_change_no_byte(backend, options):
    optimizer, param = stepped(backend, torch.bfloat16, **options)
    before = helpers.snapshot(optimizer)
    helpers.set_gradients([param], 9)
    optimizer.found_inf = torch.ones((), device=helpers.DEVICES[backend])
    optimizer.step()
    del optimizer.found_inf
    helpers.assert_same_bits(helpers.snapshot(optimizer), before)
    param.grad = None
    optimizer.step()
    helpers.assert_same_bits(helpers.snapshot(optimizer), before)


def test_the_skipped_step_of_an_extragradient_pair_returns_to_it(backend):
    optimizer, param = stepped(backend, torch.bfloat16, extrapolation="extragradient")
    before = planes(optimizer, param)
    helpers.set_gradients([param], 9)
    optimizer.extrapolate()
    optimizer.found_inf = torch.ones((), device=helpers.DEVICES[backend])
    optimizer.step()
    helpers.assert_same_bits(planes(optimizer, param), before)
    helpers.assert_same_bits(param.detach(), stored_base(optimizer.state[param]).to(torch.bfloat16))


@pytest.mark.parametrize("dtype", HALVES, ids=helpers.describe)
@pytest.mark.parametrize("extrapolation", [None, "extragradient"])
def test_a_parameter_that_is_changed_by_hand_becomes_x(backend, dtype, extrapolation):
    optimizer, param = stepped(backend, dtype, extrapolation=extrapolation)
    still = stored_base(optimizer.state[param])
    with torch.no_grad():
        param[:10] = 0.3
    base = optimizer.base_of(param)
    assert (base[:10] == torch.tensor(0.3, dtype=dtype).float()).all()
    helpers.assert_same_bits(base[10:], still[10:])
    # Without base_of(), the step finds it.
    for name in ("reference", backend):
        other, changed = stepped(name, dtype, extrapolation=extrapolation)
        with torch.no_grad():
            changed[:10] = 0.3
        if extrapolation == "extragradient":
            helpers.set_gradients([changed], 9)
            other.extrapolate()
            helpers.assert_same_bits(stored_base(other.state[changed]).cpu(), base.cpu())
        helpers.train(other, 1, seed=7) if extrapolation is None else None
        if name == "reference":
            expected = helpers.snapshot(other)
    helpers.assert_same_bits(helpers.snapshot(other), expected)


def test_modes_and_set_base(backend):
    optimizer, param = stepped(backend, torch.bfloat16)
    before, point = planes(optimizer, param), param.detach().clone()
    with optimizer.base_parameters():
        helpers.assert_same_bits(param.detach(), stored_base(optimizer.state[param]).to(torch.bfloat16))
    helpers.assert_same_bits([*planes(optimizer, param), param.detach()], [*before, point])
    optimizer.eval()
    with torch.no_grad():
        param[0] = 0.5
    optimizer.train()
    assert (optimizer.base_of(param)[0] == 0.5).all() and (param[0] == 0.5).all()
    helpers.assert_same_bits(optimizer.base_of(param)[1:], stored_base({"base": before[0], BASE_LOW: before[1]})[1:])
    value = torch.linspace(0, 1, 64 * 64, device=param.device).view(64, 64)
    optimizer.set_base(param, value)
    helpers.assert_same_bits(optimizer.base_of(param), SPLIT.rounded(value, None))


# --- State dicts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state_dtype", COMPACT, ids=helpers.describe)
def test_float32_checkpoints_load_to_nearest_and_back_without_loss(backend, state_dtype):
    wide, param = stepped(backend, torch.bfloat16, state_dtype=torch.float32)
    saved = copy.deepcopy(wide.state_dict())
    saved["param_groups"][0]["state_dtype"] = state_dtype
    resumed, other = stepped(backend, torch.bfloat16, steps=0)
    resumed.load_state_dict(saved)
    rounded = SPLIT.rounded(wide.base_of(param), None)
    helpers.assert_same_bits(stored_base(resumed.state[other]), rounded)
    again = resumed.float32_state_dict()["state"][0]
    assert BASE_LOW not in again
    helpers.assert_same_bits(again["base"], rounded)
    # In mid-run, too.
    wide.param_groups[0]["state_dtype"] = state_dtype
    param.grad = torch.zeros_like(param)
    wide.param_groups[0].update(lr=0.0, weight_decay=0.0)
    wide.step()
    helpers.assert_same_bits(stored_base(wide.state[param]), rounded)
    wide.param_groups[0]["state_dtype"] = torch.float32
    wide.step()
    assert BASE_LOW not in wide.state[param]
    helpers.assert_same_bits(wide.state[param]["base"], rounded)


@pytest.mark.parametrize("evaluating", [False, True], ids=["train", "eval"])
@pytest.mark.parametrize("state_dtype", COMPACT, ids=helpers.describe)
def test_a_checkpoint_resumes_bit_for_bit(backend, tmp_path, state_dtype, evaluating):
    optimizer, param = stepped(backend, torch.bfloat16, state_dtype=state_dtype)
    if evaluating:
        optimizer.eval()
    torch.save([optimizer.state_dict(), param.detach()], tmp_path / "saved")
    saved, held = torch.load(tmp_path / "saved", weights_only=True)
    resumed, other = stepped(backend, torch.bfloat16, steps=0)
    with torch.no_grad():
        other.copy_(held)
    resumed.load_state_dict(saved)
    for each in (optimizer, resumed):
        each.train()
        helpers.train(each, 1, seed=3)
    helpers.assert_same_bits(helpers.snapshot(resumed), helpers.snapshot(optimizer))


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.pop(BASE_LOW),
        lambda state: state.update({BASE_LOW: state[BASE_LOW][:3]}),
        lambda state: state.update({BASE_LOW: state[BASE_LOW].float()}),
    ],
    ids=["missing", "shape", "dtype"],
)
def test_damaged_low_bytes_are_named(backend, damage):
    optimizer, param = stepped(backend, torch.bfloat16)
    saved = optimizer.state_dict()
    damage(saved["state"][0])
    before = helpers.snapshot(optimizer)
    with pytest.raises(ValueError, match="'base_low' for parameter 0"):
        optimizer.load_state_dict(saved)
    helpers.assert_same_bits(helpers.snapshot(optimizer), before)


@pytest.mark.parametrize("name, beside", [("base", BASE_LOW), ("exp_avg", "exp_avg_exponent")])
def test_a_step_without_the_tensor_beside_names_it(backend, name, beside):
    optimizer, param = stepped(backend, torch.bfloat16, state_dtype=torch.uint8)
    del optimizer.state[param][beside]
    with pytest.raises(ValueError, match=f"'{name}'.* lacks '{beside}'"):
        helpers.train(optimizer, 1)


@pytest.fixture
def single_process_group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("evaluating", [False, True], ids=["train", "eval"])
def test_an_average_is_rounded_to_nearest(single_process_group, evaluating):
    """That of one worker is its base iterate; in eval mode the parameter holds what is stored."""
    optimizer, param = stepped("cpu", torch.bfloat16)
    before, point = planes(optimizer, param), param.detach().clone()
    if evaluating:
        optimizer.eval()
    average_base(optimizer)
    helpers.assert_same_bits(planes(optimizer, param), before)
    optimizer.train()
    helpers.assert_same_bits([*planes(optimizer, param), param.detach()], [*before, point])
