"""State in 8 bits with an exponent for each 16 numbers: the codec, every backend, state that is saved and converted."""

import itertools
import math
import struct

import helpers
import pytest
import torch
from parts import stepped_like_parts

from extrap_kernels import ExtrapAdam, ExtrapAdamW, ExtrapSGD, backends
from extrap_kernels.state.blocks import check_shard, takes_blocks
from extrap_kernels.state.formats import STATE_FORMATS

BLOCKS = STATE_FORMATS[torch.uint8]
FORMATS = [pytest.param(BLOCKS.signed, id="signed"), pytest.param(BLOCKS.unsigned, id="unsigned")]


def pattern(value):
    return struct.unpack("<I", struct.pack("<f", value))[0]


def number(bits):
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def rounded(value):
    """To float32."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def model_encode(values, words, mantissa, signed):
    """The codes and the exponent of a block, in exact arithmetic on Python's numbers."""
    kept = [rounded(v if signed else math.sqrt(v)) for v in values]
    if any(math.isnan(v) or math.isinf(v) for v in kept):
        return [0] * 16, 255
    randoms = [(word >> 8 & 0xFF) / 2**8 + 2**-9 if signed else (word >> 16) / 2**16 + 2**-17 for word in words]
    e = 12
    for v, random in zip(kept, randoms):
        if abs(v) >= 2.0**-126:
            power = math.floor(math.log2(abs(v)))
            steps = math.floor(abs(v) / 2.0**power * 2**mantissa + random)
            e = max(e, power + 127 + (steps == 2 << mantissa))
    if e == 255:
        return [0] * 16, 255
    smallest = 2.0 ** (e - 6 - 127)
    codes = []
    for v, random in zip(kept, randoms):
        if abs(v) < smallest:
            # As float32 has it where the smallest number with an exponent is added to it.
            steps = (rounded(abs(v) + smallest) - smallest) / smallest * 2**mantissa
            code = math.floor(steps + random)
        else:
            power = math.floor(math.log2(abs(v)))
            steps = abs(v) / 2.0**power * 2**mantissa  # from 2**mantissa on
            code = ((power + 127 - (e - 6)) << mantissa) + math.floor(steps + random)
        assert code < 8 << mantissa
        if signed:
            code |= (math.copysign(1, v) < 0) << 7
        else:
            code = max(code, 2 * (v != 0))
        codes.append(code)
    return codes, e


def model_decode(codes, e, mantissa, signed):
    numbers = []
    for code in codes:
        sign = -1.0 if signed and code & 0x80 else 1.0
        code = code & 0x7F if signed else code
        if code < 1 << mantissa:
            value = code * 2.0 ** (e - 6 - 127 - mantissa)
        else:
            power = (code >> mantissa) - 1 + e - 6 - 127
            value = (1 + (code & ((1 << mantissa) - 1)) / 2**mantissa) * 2.0**power
        numbers.append(math.nan if e == 255 else sign * value if signed else rounded(value * value))
    return numbers


HOSTILE = [
    [0.0] * 16,
    [1.0] + [0.0] * 15,
    [1e-30] * 15 + [1e4],
    [2.0**-k for k in range(16)],
    [1.9999999] * 16,
    [1e-45, 1e-40, 1e-38] + [1e-39] * 13,
    [3.4e38, 1.0] + [1e-20] * 14,
    [math.inf] + [1.0] * 15,
    [math.nan] + [1.0] * 15,
]


@pytest.mark.parametrize("form", FORMATS)
def test_codes_are_those_of_the_exact_model(form):
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(200, 16, generator=generator) * torch.exp(3 * torch.randn(200, 16, generator=generator))
    blocks = [*HOSTILE, *random.tolist()]
    words = torch.randint(0, 2**32, (len(blocks), 16), generator=generator)
    words[: len(HOSTILE)] = torch.tensor([0, 2**32 - 1])[torch.arange(16) % 2]
    values = torch.tensor(blocks)
    values = values if form.signed else values.abs()
    codes, exponents = form.encode_blocks(values, words)
    for k, row in enumerate(values.tolist()):
        expected, e = model_encode(row, words[k].tolist(), form.mantissa, form.signed)
        assert (codes[k].tolist(), int(exponents[k])) == (expected, e), row
        decoded = form.decode_blocks(codes[k : k + 1], exponents[k : k + 1])[0].tolist()
        for actual, wanted in zip(decoded, model_decode(expected, e, form.mantissa, form.signed)):
            assert actual == wanted or (math.isnan(actual) and math.isnan(wanted))


@pytest.mark.parametrize("form", FORMATS)
def test_every_code_comes_back_whatever_the_random_bits(form):
    """With every exponent whose numbers float32 has, or, of roots, has the squares of."""
    top = (8 << form.mantissa) - 6  # gives the block its exponent
    codes = torch.arange(256)[:, None].repeat(1, 16).to(torch.uint8)
    codes[:, 0] = top
    if not form.signed:
        codes[1, 1:] = 0  # no root has the code 1
    for e in range(12, 255) if form.signed else range(72, 190):
        exponents = torch.full((256, 1), e, dtype=torch.uint8)
        values = form.decode_blocks(codes, exponents)
        for word in (None, 0, 0x80808080, 0xFFFFFFFF):
            words = None if word is None else torch.full(values.shape, word)
            again, same = form.encode_blocks(values, words)
            assert torch.equal(again, codes) and torch.equal(same, exponents), e


@pytest.mark.parametrize("form", FORMATS)
def test_rounding_is_unbiased(form):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(64, 16, generator=generator) * 1e-4
    values = values if form.signed else values.abs()
    total = torch.zeros(values.shape, dtype=torch.float64)
    rounds = 1000
    for _ in range(rounds):
        codes, exponents = form.encode_blocks(values, torch.randint(0, 2**32, values.shape, generator=generator))
        decoded = form.decode_blocks(codes, exponents).double()
        total += decoded if form.signed else decoded.sqrt()
    kept = values.double() if form.signed else values.double().sqrt()
    step = 2.0 ** (exponents.double() - 127 - form.mantissa)  # the widest of a block
    assert ((total / rounds - kept).abs() < step * (0.5 / rounds**0.5 * 5 + 2**-9)).all()


def matrices(backend, dtype, offset=0):
    """Two matrices in blocks, one that is too small, and a vector."""
    generator = torch.Generator().manual_seed(0)
    params = []
    for shape in ((64, 80), (37, 4, 48), (8, 16), (4096,)):
        flat = torch.randn(math.prod(shape) + offset, generator=generator)[offset:]
        params.append(torch.nn.Parameter(flat.to(helpers.DEVICES[backend], dtype).view(shape)))
    return params


RULES = {
    "sgd": (ExtrapSGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "adam": (ExtrapAdam, {}),
    "adamw": (ExtrapAdamW, {"weight_decay": 0.1}),
    "lars": (helpers.ExtrapLARS, {"momentum": 0.9}),
    "lamb": (helpers.ExtrapLAMB, {}),
}


def trained(backend, rule, dtype, steps=3, offset=0, **options):
    kind, own = RULES[rule]
    optimizer = kind(
        matrices(backend, dtype, offset), lr=0.1, backend=backend, **own, **{"state_dtype": torch.uint8, **options}
    )
    helpers.train(optimizer, steps)
    return optimizer


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=helpers.describe)
@pytest.mark.parametrize(
    "options",
    [{}, {"noise": "uniform", "noise_std": 0.01}, {"extrapolation": "past_update"}, helpers.EXTRAGRADIENT],
    ids=helpers.describe,
)
@pytest.mark.parametrize("backend", helpers.FAST_BACKENDS)
def test_the_same_bits_as_the_reference(backend, rule, dtype, options):
    # The sums of norms are added up in other orders: their ratio is left out.
    options = {**options, **({"layer_adaptation": False} if rule in ("lars", "lamb") else {})}
    offset = 1  # gradients lie at other addresses than parameters
    results = [helpers.snapshot(trained(b, rule, dtype, offset=offset, **options)) for b in ("reference", backend)]
    helpers.assert_same_bits(*results)
    for state, param in zip(results[1][1], results[1][0]):
        for name in set(state) & {"momentum_buffer", "exp_avg", "exp_avg_sq"}:
            assert (state[name].dtype == torch.uint8) is takes_blocks(param)


@pytest.mark.parametrize("rule", ["lars", "lamb"])
def test_norms_read_blocks(backend, rule):
    """Close to the reference, whose sums are in another order."""
    ours, reference = (
        torch.cat([p.detach().float().flatten().cpu() for p in helpers.parameters_of(trained(b, rule, torch.float32))])
        for b in (backend, "reference")
    )
    assert torch.allclose(ours, reference, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_block_that_is_not_finite_is_so_on_every_backend(backend, value):
    snapshots = []
    for name in ("reference", backend):
        optimizer = ExtrapAdam(matrices(name, torch.float32), lr=0.1, state_dtype=torch.uint8, backend=name)
        for t in range(2):
            helpers.set_gradients(helpers.parameters_of(optimizer), t)
            helpers.parameters_of(optimizer)[0].grad[3, 17] = value if t == 0 else 1.0
            optimizer.step()
        snapshots.append(helpers.snapshot(optimizer))
    helpers.assert_same_bits(snapshots[1], snapshots[0])
    state = snapshots[1][1][0]
    assert int(state["exp_avg_exponent"][3, 1]) == 255 and int((state["exp_avg_exponent"] == 255).sum()) == 1
    assert int(state["exp_avg"][3, 16:32].max()) == 0


ROWS = (lambda n: slice(0, n // 3), lambda n: slice(n // 3, n))
COLUMNS = (lambda n: slice(0, n // 4 // 16 * 16), lambda n: slice(n // 4 // 16 * 16, n))


@pytest.mark.parametrize("options", [{}, {"noise": "uniform", "noise_std": 0.1}], ids=helpers.describe)
@pytest.mark.parametrize("backend", helpers.BACKENDS)
def test_parts_are_stored_as_the_whole(backend, options):
    generator = torch.Generator().manual_seed(0)
    wholes = [torch.randn(shape, generator=generator) for shape in ((48, 96), (67, 64))]
    wholes = [torch.nn.Parameter(whole.to(helpers.DEVICES[backend])) for whole in wholes]
    optimizer = ExtrapAdam(wholes, lr=0.1, state_dtype=torch.uint8, backend=backend, **options)
    optimizer.rank = 0
    for part in stepped_like_parts(optimizer, backends.BACKENDS[backend].executor(), ROWS, COLUMNS):
        for entry, state, whole, (rows, columns) in zip(part.entries, part.states, wholes, part.cuts):
            of_whole = optimizer.state[whole]
            helpers.assert_same_bits(entry.param, whole.detach()[rows, columns])
            of_blocks = slice(columns.start // 16, columns.stop // 16)
            for name in ("exp_avg", "exp_avg_sq"):
                helpers.assert_same_bits(state[name], of_whole[name][rows, columns])
                helpers.assert_same_bits(state[f"{name}_exponent"], of_whole[f"{name}_exponent"][rows, of_blocks])


@pytest.mark.parametrize("instruction_set", ["avx512", "avx2", "portable"])
@pytest.mark.parametrize("threads_", [1, 3])
def test_instruction_sets_and_threads_give_the_same_bits(native, threads, instruction_set, threads_):
    if instruction_set not in native.instruction_sets():
        pytest.skip(f"this processor or build has no {instruction_set}")
    native.select_instruction_set(instruction_set)
    threads(threads_)
    for dtype in (torch.float32, torch.bfloat16):
        results = [helpers.snapshot(trained(b, "adam", dtype, offset=1)) for b in ("reference", "cpu")]
        helpers.assert_same_bits(*results)


def test_the_first_half_of_a_step_and_a_skipped_step_change_no_byte(backend):
    optimizer = trained(backend, "adam", torch.bfloat16, **helpers.EXTRAGRADIENT)
    before = helpers.snapshot(optimizer)[1]
    helpers.set_gradients(helpers.parameters_of(optimizer), 5)
    optimizer.extrapolate()
    helpers.assert_same_bits(helpers.snapshot(optimizer)[1], before)
    optimizer.found_inf = torch.ones((), device=helpers.DEVICES[backend])
    optimizer.grad_scale = torch.ones((), device=helpers.DEVICES[backend])
    optimizer.step()
    helpers.assert_same_bits(helpers.snapshot(optimizer)[1], before)


def decoded(optimizer, param, name):
    state = optimizer.state[param]
    form = BLOCKS.unsigned if name == "exp_avg_sq" else BLOCKS.signed
    return form.decode(state[name], torch.float32, state[f"{name}_exponent"])


def test_an_outlier_leaves_no_root_at_zero():
    param = torch.nn.Parameter(torch.zeros(64, 64))
    optimizer = ExtrapAdam([param], state_dtype=torch.uint8)
    for _ in range(5):
        param.grad = torch.full((64, 64), 1e-6)
        param.grad[:, ::16] = 1.0
        optimizer.step()
    assert float(decoded(optimizer, param, "exp_avg_sq").min()) > 0


def test_state_of_every_format_loads_into_every_other(backend):
    formats = (torch.float32, torch.bfloat16, torch.uint8)
    for saved_dtype, dtype in itertools.product(formats, formats):
        optimizer = trained(backend, "adam", torch.bfloat16, state_dtype=saved_dtype)
        resumed = trained(backend, "adam", torch.bfloat16, state_dtype=dtype)
        state_dict = optimizer.state_dict()
        for group in state_dict["param_groups"]:
            group["state_dtype"] = dtype
        resumed.load_state_dict(state_dict)
        saved, loaded = (o.state[helpers.parameters_of(o)[0]] for o in (optimizer, resumed))
        assert loaded["exp_avg"].dtype == dtype and ("exp_avg_exponent" in loaded) is (dtype == torch.uint8)
        if saved_dtype == dtype:
            helpers.assert_same_bits(loaded, saved)
        helpers.train(resumed, 1)


def test_a_saved_state_resumes_to_the_bit(backend, tmp_path):
    optimizer = trained(backend, "adamw", torch.bfloat16)
    params = [p.detach().clone() for p in helpers.parameters_of(optimizer)]
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    resumed = trained(backend, "adamw", torch.bfloat16, steps=1)
    for p, value in zip(helpers.parameters_of(resumed), params):
        p.data.copy_(value)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for each in (optimizer, resumed):
        helpers.train(each, 2, seed=9)
    helpers.assert_same_bits(helpers.snapshot(resumed), helpers.snapshot(optimizer))


def test_the_format_changes_in_mid_run(backend):
    optimizer = trained(backend, "adam", torch.float32, state_dtype=torch.float32)
    param = helpers.parameters_of(optimizer)[0]
    for dtype in (torch.uint8, torch.bfloat16, torch.uint8, torch.float32):
        optimizer.param_groups[0]["state_dtype"] = dtype
        helpers.train(optimizer, 1)
        state = optimizer.state[param]
        assert state["exp_avg"].dtype == dtype and ("exp_avg_exponent" in state) is (dtype == torch.uint8)


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.pop("exp_avg_exponent"),
        lambda state: state.update(exp_avg_exponent=state["exp_avg_exponent"][1:]),
        lambda state: state.update(exp_avg_exponent=state["exp_avg_exponent"].float()),
        lambda state: state["exp_avg_exponent"].zero_(),
    ],
    ids=["missing", "shape", "dtype", "value"],
)
def test_damaged_exponents_are_refused(damage):
    optimizer = trained("cpu", "adam", torch.float32)
    state_dict = optimizer.state_dict()
    state_dict["state"][0] = {name: value.clone() for name, value in state_dict["state"][0].items()}
    damage(state_dict["state"][0])
    with pytest.raises(ValueError, match="'exp_avg_exponent' for parameter 0"):
        optimizer.load_state_dict(state_dict)


def test_exponents_of_another_shape_are_refused_by_a_step():
    optimizer = trained("cpu", "adam", torch.float32)
    param = helpers.parameters_of(optimizer)[0]
    optimizer.state[param]["exp_avg_exponent"] = torch.full((3, 5), 100, dtype=torch.uint8)
    with pytest.raises(ValueError, match="exp_avg_exponent"):
        helpers.train(optimizer, 1)


def test_which_parameters_have_blocks():
    for shape, expected in [
        ((64, 64), True),
        ((4096,), False),
        ((64, 63), False),
        ((4095, 16), True),
        ((63, 64), False),
        ((128, 4, 8), True),
        ((8, 520), False),
    ]:
        assert takes_blocks(torch.empty(shape)) is expected, shape
    assert not takes_blocks(torch.empty(64, 128).t())
    assert takes_blocks(torch.empty(64, 256)[:, ::2])


class _Shard:
    def __init__(self, offset, extent, stride, row_groups=()):
        self.offset, self.extent, self.stride, self.row_groups = offset, extent, stride, row_groups


def test_a_shard_that_cuts_blocks_is_refused():
    param = torch.empty(64, 64)
    check_shard("p", param, _Shard(64, 1024, 1024))
    check_shard("p", param, _Shard(64, 4096, 1))  # one extent: there is no distance to a second one
    with pytest.raises(ValueError, match="p of shape .* state_dtype=torch.bfloat16"):
        check_shard("p", param, _Shard(8, 8, 64))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64], ids=helpers.describe)
def test_double_and_complex_parameters_are_refused(backend, dtype):
    with pytest.raises(ValueError, match=r"state_dtype value: torch.uint8 for a parameter of torch\.(float64|complex)"):
        optimizer = ExtrapSGD(helpers.zoo(backend, dtype, ("matrix",)), state_dtype=torch.uint8, momentum=0.9)
        helpers.train(optimizer, 1)


def test_training_follows_float32_moments():
    losses = []
    for state_dtype in (torch.float32, torch.uint8):
        param = torch.nn.Parameter(torch.ones(64, 64))
        optimizer = ExtrapAdam([param], lr=1e-2, state_dtype=state_dtype)
        generator = torch.Generator().manual_seed(0)
        for _ in range(400):
            param.grad = param.detach() + 0.1 * torch.randn(64, 64, generator=generator)
            optimizer.step()
        losses.append(float(optimizer.base_of(param).square().mean()))
    assert losses[1] < 1.2 * losses[0] + 1e-6
