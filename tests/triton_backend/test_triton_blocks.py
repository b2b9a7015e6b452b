"""Backend `triton` on buffers in blocks: codes and exponents by themselves, and steps of tensors that lie unaligned.

What all backends have in common, ../test_blocks.py tests with Triton, too.
"""

import helpers
import pytest
import torch
from test_blocks import HOSTILE

from extrap_kernels.state.blocks import BLOCK, POISONED, SMALLEST
from extrap_kernels.state.formats import STATE_FORMATS

pytestmark = pytest.mark.skipif(
    "triton" not in helpers.DEVICES, reason="needs a GPU, or TRITON_INTERPRET=1 before Python starts"
)
FORMATS = {"signed": STATE_FORMATS[torch.uint8].signed, "unsigned": STATE_FORMATS[torch.uint8].unsigned}
if "triton" in helpers.DEVICES:
    import triton
    import triton.language as tl

    from extrap_kernels.triton_kernels import executor, variants
    from extrap_kernels.triton_kernels.kernels.blocks import load_blocks, store_blocks
    from extrap_kernels.triton_kernels.python_binding import PythonBinding

    @triton.jit
    def decode_kernel(codes, exponents, out, numel, SIGN: tl.constexpr, TILE: tl.constexpr, ALIGNED: tl.constexpr):
        o, start = tl.arange(0, TILE), tl.program_id(0).to(tl.int64) * TILE
        left = tl.minimum(numel - start, TILE).to(tl.int32)
        tl.store(out + start + o, load_blocks(codes, exponents, start, left, SIGN, TILE, ALIGNED), mask=o < left)

    @triton.jit
    def encode_kernel(
        values, words, codes, exponents, numel, SIGN: tl.constexpr, TILE: tl.constexpr, ALIGNED: tl.constexpr
    ):
        o, start = tl.arange(0, TILE), tl.program_id(0).to(tl.int64) * TILE
        left = tl.minimum(numel - start, TILE).to(tl.int32)
        value = tl.load(values + start + o, mask=o < left)
        bits = tl.load(words + start + o, mask=o < left).to(tl.uint32)
        store_blocks(codes, exponents, start, left, value, bits, SIGN, TILE, ALIGNED)


TILE = 1024


def on_device(tensor):
    return tensor.to(helpers.DEVICES["triton"])


def decoded(codes, exponents, sign, aligned):
    out = on_device(torch.empty(codes.shape))
    tensors = [on_device(t) for t in (codes, exponents)]
    addresses = [t.data_ptr() for t in tensors]
    decode_kernel[(triton.cdiv(codes.numel(), TILE),)](*addresses, out, codes.numel(), sign, TILE, aligned)
    return out.cpu()


def encoded(values, words, sign, aligned):
    """Codes and exponents, which nothing is written after."""
    codes = on_device(torch.full((len(values) + 2, BLOCK), 99, dtype=torch.uint8))
    exponents = on_device(torch.full((len(values) + 32, 1), 99, dtype=torch.uint8))
    arguments = (on_device(values), on_device(words), codes.data_ptr(), exponents.data_ptr(), values.numel())
    encode_kernel[(triton.cdiv(values.numel(), TILE),)](*arguments, sign, TILE, aligned)
    assert (codes[len(values) :] == 99).all() and (exponents[len(values) :] == 99).all()
    return codes[: len(values)].cpu(), exponents[: len(values)].cpu()


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("form", FORMATS)
def test_every_code_is_decoded_as_by_the_reference(form, aligned):
    """With every exponent, and a block that is NaN at last."""
    codes = torch.arange(256, dtype=torch.uint8).view(-1, BLOCK).repeat(POISONED - SMALLEST, 1)
    exponents = torch.arange(SMALLEST, POISONED, dtype=torch.uint8).repeat_interleave(256 // BLOCK)
    codes = torch.cat([codes, torch.zeros(1, BLOCK, dtype=torch.uint8)])
    exponents = torch.cat([exponents, torch.tensor([POISONED], dtype=torch.uint8)]).view(-1, 1)
    expected = FORMATS[form].decode_blocks(codes, exponents)
    helpers.assert_same_bits(decoded(codes, exponents, form == "signed", aligned), expected)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("form", FORMATS)
def test_numbers_are_encoded_as_by_the_reference(form, aligned):
    """Hostile ones and random ones of many magnitudes, by random bits and by the least and the largest of them."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(600, BLOCK, generator=generator) * torch.exp(9 * torch.randn(600, BLOCK, generator=generator))
    rows = torch.exp(30 * torch.randn(600, 1, generator=generator)).clamp(1e-30, 1e30)
    # So many more that the last tile has a few blocks only.
    values = torch.cat([torch.tensor(HOSTILE), -torch.tensor(HOSTILE), values, values * rows])
    values = values if form == "signed" else values.abs()
    words = torch.randint(0, 2**32, values.shape, generator=generator)
    for bits in (words, torch.zeros_like(words), torch.full_like(words, 2**32 - 1)):
        expected = FORMATS[form].encode_blocks(values, bits)
        helpers.assert_same_bits(encoded(values, bits, form == "signed", aligned), expected)


SHAPES = ((64, 80), (3, 3, 512), (7, 33))
STEPS = [
    ("sgd", {"momentum": 0.9, "nesterov": True}, torch.float16, "python"),
    ("adamw", {"noise": "uniform", "noise_std": 0.1}, torch.bfloat16, "python"),
    ("adam", {"extrapolation": None}, torch.float32, "native"),
    ("lamb", {"layer_adaptation": False}, torch.float32, "native"),
    ("lars", {"momentum": 0.9, "layer_adaptation": False}, torch.bfloat16, "native"),
    ("adam", helpers.EXTRAGRADIENT, torch.bfloat16, "native"),
]


def trained(backend, rule, options, dtype):
    """Of the parameters, one lies at an odd address, and so does the gradient of another one."""
    generator = torch.Generator().manual_seed(0)
    params = [torch.randn(shape, generator=generator).to(helpers.DEVICES[backend], dtype) for shape in SHAPES]
    params.append(torch.cat([params[0].flatten()[:1], params[0].flatten()])[1:].view(80, 64))
    params = [torch.nn.Parameter(param) for param in params]
    optimizer = helpers.RULES[rule].optimizer(params, lr=0.1, backend=backend, state_dtype=torch.uint8, **options)
    for t in range(3):
        for phase in ("extrapolate", "step") if options.get("extrapolation") == "extragradient" else ("step",):
            helpers.set_gradients(params, t)
            params[0].grad[3] *= 1e-6
            params[0].grad[4, 5:9] *= 1e4
            gradient = params[1].grad.flatten()
            params[1].grad = torch.cat([gradient[:1], gradient])[1:].view(SHAPES[1])
            if t == 1:
                params[1].grad[1, 2, 3] = torch.inf
                params[3].grad[2, 3] = torch.nan
            getattr(optimizer, phase)()
    return helpers.snapshot(optimizer)


@pytest.mark.parametrize("rule, options, dtype, binding", STEPS, ids=helpers.describe)
def test_steps_have_the_bits_of_the_reference(monkeypatch, rule, options, dtype, binding):
    """In tiles of both kinds, of several programs."""
    monkeypatch.setattr(variants, "interpreter_tiling", lambda _: variants.Tiling(2048, 4096, 4096, num_warps=4))
    if binding == "python":
        monkeypatch.setattr(executor, "binding_type", lambda: PythonBinding)
    expected, actual = (trained(backend, rule, options, dtype) for backend in ("reference", "triton"))
    helpers.assert_same_bits(actual, expected)
    names = [name for name in actual[1][0] if name.endswith("_exponent")]
    assert names and any((actual[1][1][name] == POISONED).any() for name in names)


def test_rounds_only_what_random_bits_round():
    from extrap_kernels.rules import every_rule

    sgd, adam = (variants.Rule(spec, spec.buffers) for spec in (every_rule()["sgd"], every_rule()["adam"]))
    for name, rounded in (("float32", ()), ("bfloat16", (adam,)), ("uint8", (sgd, adam))):
        for rule in (sgd, adam):
            assert rule.rounds(rule.with_buffers(variants.Formats.of("bfloat16"), name)) is (rule in rounded)
