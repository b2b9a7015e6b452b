"""Backend `triton` on the parts of tensors that other processes hold the rest of."""

import helpers
import pytest
import torch
from parts import Part, entry_of, launch_of, step_parts

from extrap_kernels.backends.reference import ReferenceExecutor
from extrap_kernels.launch import Phase
from extrap_kernels.shards import Shard
from extrap_kernels.state.layout import StateLayout

pytestmark = pytest.mark.skipif(
    "triton" not in helpers.DEVICES, reason="needs a GPU, or TRITON_INTERPRET=1 before Python starts"
)
if "triton" in helpers.DEVICES:
    import triton
    import triton.language as tl

    from extrap_kernels.triton_kernels.executor import TritonExecutor
    from extrap_kernels.triton_kernels.kernels.noise import positions
    from extrap_kernels.triton_kernels.kernels.table import NoiseRow

# Runs of odd length, runs of whole vectors, three dimensions, a vector, and empty parts: of 2 rows, of 1 column.
SHAPES = ((7, 33), (9, 24), (2, 6, 5), (5,), (3, 1), (3, 0))
THIRDS = (lambda n: slice(0, n // 3), lambda n: slice(n // 3, n))
EVERYTHING = (lambda n: slice(0, n),)
CUTS = {"rows": (THIRDS, EVERYTHING), "columns": (EVERYTHING, THIRDS), "rows and columns": (THIRDS, THIRDS)}


def check(rule_name, variant, perturbation, dtype, cut, steps=2):
    """The parts have the bits of the whole in float32; in others at most the last bit of a norm differs."""
    rule = helpers.RULES[rule_name]
    generator = torch.Generator().manual_seed(1)
    values = [torch.randn(s, generator=generator, dtype=torch.promote_types(dtype, torch.float32)) for s in SHAPES]
    wholes = [torch.nn.Parameter(each.to(helpers.DEVICES["triton"], dtype)) for each in values]
    optimizer = rule.optimizer(wholes, lr=0.1, backend="triton", **rule.variants[variant], **perturbation)
    optimizer.rank = 0
    group = optimizer.param_groups[0]
    rows, columns = CUTS[cut]
    grid = [[Part(TritonExecutor, optimizer, r, c) for c in columns] for r in rows]
    halves = 2 if group["extrapolation"] == "extragradient" else 1
    for t in range(halves * steps):
        phase = Phase.UPDATE if t % halves == halves - 1 else Phase.EXTRAPOLATE
        helpers.set_gradients(wholes, t)
        step_parts(grid, optimizer, phase=phase)
        optimizer.step() if phase is Phase.UPDATE else optimizer.extrapolate()
        for line in grid:
            for part in line:
                compare(part, wholes, optimizer)


def compare(part, wholes, optimizer):
    for entry, state, whole, cut in zip(part.entries, part.states, wholes, part.cuts):
        expected = {"param": whole.detach()[cut]}
        expected |= {name: value[cut] if value.dim() else value for name, value in optimizer.state[whole].items()}
        actual = {"param": entry.param, **state}
        if whole.dtype.to_real() == torch.float64:
            torch.testing.assert_close(actual, expected, rtol=1e-14, atol=1e-14)
        else:
            helpers.assert_same_bits(actual, expected)


FEW = [
    ("sgd", "plain", {"noise": "uniform", "noise_scale": "absolute"}, torch.float32, "columns"),
    ("lamb", "decay", {"noise": "gaussian", "noise_scale": "filter"}, torch.float16, "rows and columns"),
    ("lars", "decay", {"noise": "uniform", "noise_scale": "tensor"}, torch.complex64, "columns"),
    ("lars", "plain", helpers.EXTRAGRADIENT, torch.float64, "rows"),
    ("adam", "plain", {"state_dtype": torch.bfloat16}, torch.float32, "rows and columns"),
    ("adam", "plain", {"state_dtype": torch.bfloat16, "noise": "uniform"}, torch.bfloat16, "columns"),
]


@pytest.mark.parametrize("rule, variant, perturbation, dtype, cut", FEW, ids=helpers.describe)
def test_few_step_as_the_whole(rule, variant, perturbation, dtype, cut):
    check(rule, variant, perturbation, dtype, cut)


@pytest.mark.slow
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("perturbation", [*helpers.NOISES, helpers.EXTRAGRADIENT], ids=helpers.describe)
@pytest.mark.parametrize("rule", helpers.RULES)
def test_rules_step_as_the_whole(rule, perturbation, cut):
    check(rule, "plain" if rule != "adamw" else "decay", perturbation, torch.float32, cut)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", helpers.DTYPES, ids=helpers.describe)
@pytest.mark.parametrize("scale", ["absolute", "tensor", "filter", "gradient"])
def test_dtypes_step_as_the_whole(scale, dtype):
    check("lamb", "decay", {"noise": "uniform", "noise_scale": scale}, dtype, "rows and columns")


# Offset, extent, stride: multiples of 4; not; one extent; shorter than a counter; beyond 32 bits.
PLACES = [(4, 8, 20), (8, 8, 21), (3, 8, 20), (0, 7, 28), (5, 99, 0), (8, 99, 7), (2, 1, 3), (2, 3, 2**33)]
PLACES += [(2**40 + 1, 99, 0), (2**40 + 4, 16, 2**36), (2**34 - 2, 99, 0)]


@pytest.mark.parametrize("offset, extent, stride", PLACES)
@pytest.mark.parametrize("noise", ["uniform", "gaussian"])
def test_noise_is_that_of_the_position(noise, offset, extent, stride):
    """Against the reference."""
    optimizer = helpers.RULES["sgd"].optimizer([torch.zeros(1)], lr=0.1, noise=noise, noise_std=1.0, seed=7)
    group, shard = optimizer.param_groups[0], Shard(offset, extent, stride, 2**50, 1, (), ())
    spec, results = optimizer.rule.SPEC, []
    layout = StateLayout.of(spec, group, torch.float32)
    for backend, executor_type in (("triton", TritonExecutor), ("reference", ReferenceExecutor)):
        entry, state = entry_of(torch.zeros(99, device=helpers.DEVICES[backend]), 3, shard, layout)
        entry.param.grad = torch.zeros_like(entry.param)
        executor = executor_type(spec, layout, [entry], torch.float32)
        assert executor.bind([None, None, None, state], {}) == []
        launch = launch_of(group, executor)
        executor.square_sums(launch)
        executor.run(launch)
        results.append(entry.param.cpu())
    helpers.assert_same_bits(*results)
    assert results[0].unique().numel() > 90


if "triton" in helpers.DEVICES:

    @triton.jit
    def write_positions(out, row, starts, BLOCK: tl.constexpr):
        place = NoiseRow(0, 0, 1, 1, tl.load(row), tl.load(row + 1), tl.load(row + 2))
        o, start = tl.arange(0, BLOCK), tl.load(starts + tl.program_id(0))
        tl.store(out + tl.program_id(0) * BLOCK + o, positions(place, start, o))


@pytest.mark.parametrize("extent", [1, 3, 64, 1000, 2**30 - 1, 2**30, 2**30 + 1, 2**31 + 5, 2**40 + 3, 2**62])
@pytest.mark.parametrize("offset, stride", [(0, 0), (2**41 + 3, 2**20 + 1)])
def test_positions_in_long_extents(extent, offset, stride):
    """Where a tile starts a little before, at and after the end of an extent."""
    device = helpers.DEVICES["triton"]
    starts = [k * extent + d for k in (0, 1, 5) for d in (-64, -60, -4, 0, 4) if 0 <= k * extent + d < 2**62]
    out = torch.empty(len(starts), 64, dtype=torch.int64, device=device)
    tables = [torch.tensor(values, device=device) for values in ((offset, extent, stride), starts)]
    write_positions[(len(starts),)](out, *tables, BLOCK=64)
    expected = [[offset + i // extent * stride + i % extent for i in range(start, start + 64)] for start in starts]
    assert out.tolist() == expected
