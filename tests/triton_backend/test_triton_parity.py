"""Backend `triton` against `reference`, where there is a GPU or Triton's interpreter is asked for.

The interpreter needs a process of its own: see test_interpreter.py.
"""

import functools
import itertools

import helpers
import pytest
import torch
from parts import Part, launch_of, step_parts

from extrap_kernels.launch import Phase
from extrap_kernels.state.formats import STATE_FORMATS
from extrap_kernels.state.layout import arithmetic_dtype

pytestmark = pytest.mark.skipif(
    "triton" not in helpers.DEVICES, reason="needs a GPU, or TRITON_INTERPRET=1 before Python starts"
)
LAYOUTS = ("scalar", "empty", "three", "offset", "channels_last", "columns", "blocks")
# For the full matrix: unaligned, rows that are not the elements' order in memory, and whole vectors with a rest.
FEW_LAYOUTS = ("offset", "transposed", "blocks")
# The square root of float64 in torch and sums of squares may be rounded otherwise.
EXACT_NOISE = [n for n in helpers.NOISES if n["noise"] is None or n.get("noise_scale") in ("absolute", "gradient")]


def is_exact(rule, dtype, perturbation):
    double = dtype in (torch.float64, torch.complex128)
    noise = {k: v for k, v in perturbation.items() if k != "extrapolation"}
    return noise in EXACT_NOISE and (rule == "sgd" or (rule in ("adam", "adamw") and not double))


def trained(backend, rule_name, variant, perturbation, dtype, layouts):
    rule = helpers.RULES[rule_name]
    params = helpers.zoo(backend, dtype, layouts)
    optimizer = rule.optimizer(params, lr=0.1, backend=backend, **rule.variants[variant], **perturbation)
    helpers.train(optimizer, steps=2)
    return helpers.snapshot(optimizer)


def assert_close(actual, expected):
    """Within 4 ulp of the largest element."""
    flat = [[*params, *(value for each in state for value in each.values())] for params, state in (actual, expected)]
    for a, b in zip(*flat, strict=True):
        ulp = torch.finfo(b.dtype).eps * b.abs().amax() if b.numel() else 0
        assert ((a.cpu() - b).abs() <= 4 * ulp).all()


def check(rule, variant, perturbation, dtype, layouts=LAYOUTS):
    expected = trained("reference", rule, variant, perturbation, dtype, layouts)
    actual = trained("triton", rule, variant, perturbation, dtype, layouts)
    if is_exact(rule, dtype, perturbation):
        helpers.assert_same_bits([t.cpu() for t in actual[0]], expected[0])
        helpers.assert_same_bits([{k: v.cpu() for k, v in each.items()} for each in actual[1]], expected[1])
    else:
        assert_close(actual, expected)


VARIANTS = [(rule, variant) for rule in helpers.RULES for variant in helpers.RULES[rule].variants]
# Every rule, noise, noise scale and dtype at least once.
FEW = [
    (*VARIANTS[5 * k % len(VARIANTS)], perturbation, helpers.DTYPES[k % len(helpers.DTYPES)])
    for k, perturbation in enumerate([*helpers.PERTURBATIONS[3::2], helpers.EXTRAGRADIENT])
]


@pytest.mark.parametrize("rule, variant, perturbation, dtype", FEW, ids=helpers.describe)
def test_few_follow_the_reference(rule, variant, perturbation, dtype):
    check(rule, variant, perturbation, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("perturbation", helpers.PERTURBATIONS, ids=helpers.describe)
@pytest.mark.parametrize("rule, variant", VARIANTS)
def test_rules_follow_the_reference(rule, variant, perturbation):
    check(rule, variant, perturbation, torch.float32, FEW_LAYOUTS)


@pytest.mark.slow
@pytest.mark.parametrize("perturbation", helpers.FEW_PERTURBATIONS, ids=helpers.describe)
@pytest.mark.parametrize("dtype", helpers.DTYPES, ids=helpers.describe)
@pytest.mark.parametrize("rule", helpers.RULES)
def test_dtypes_follow_the_reference(rule, dtype, perturbation):
    check(rule, "decay", perturbation, dtype, FEW_LAYOUTS)


BLOCKS = 3 * 65536 + 5


@functools.cache
def trained_in_chunks(backend, dtype, scale):
    values = torch.linspace(-1, 1, BLOCKS, dtype=torch.float64).to(dtype)
    shapes = [values, values[1:], values[: 5 * 39321].view(5, 39321)]
    params = [torch.nn.Parameter(each.to(helpers.DEVICES[backend], copy=True)) for each in shapes]
    noise = {"noise": "uniform", "noise_scale": scale, "noise_std": 0.05}
    optimizer = helpers.RULES["lars"].optimizer(
        params, lr=0.1, momentum=0.9, weight_decay=0.1, max_grad_norm=1.0, backend=backend, **noise
    )
    helpers.train(optimizer, steps=2)
    return helpers.snapshot(optimizer), float(optimizer.grad_norm)


@pytest.mark.parametrize("dtype, scale", [(torch.float32, "filter"), (torch.bfloat16, "tensor")], ids=helpers.describe)
def test_tensors_of_several_chunks(dtype, scale):
    """Also the sums of squares of them: for the noise scale, the trust ratio and the norm of all gradients."""
    (expected, norm), (actual, own_norm) = (trained_in_chunks(b, dtype, scale) for b in ("reference", "triton"))
    assert_close(actual, expected)
    assert own_norm == pytest.approx(norm, rel=1e-12)


@pytest.mark.parametrize("local_dtype", [torch.float32, torch.float64], ids=helpers.describe)
def test_local_gradients_of_another_dtype(local_dtype):
    results = []
    for backend in ("reference", "triton"):
        params = helpers.zoo(backend, torch.bfloat16, LAYOUTS)
        optimizer = helpers.RULES["sgd"].optimizer(params, lr=0.1, momentum=0.9, backend=backend)
        for seed in range(2):
            helpers.set_gradients(params, seed)
            optimizer.local_gradients = {
                p: helpers.random_like(p, seed + 9).to(local_dtype) / 3 for p in itertools.islice(params, 0, None, 2)
            }
            optimizer.step()
        results.append([t.cpu() for t in helpers.snapshot(optimizer)[0]])
    helpers.assert_same_bits(results[1], results[0])


def measure_directions(part, optimizer):
    """All whose norm may be asked for."""
    for along in ("momentum", "past_update", "past_gradient"):
        group = {**optimizer.param_groups[0], "extrapolation": along, "extrap_norm": "global"}
        try:
            optimizer.check_group(group)
        except ValueError:
            continue
        part.take_gradients(group["params"])
        launch = launch_of(group, part.executor)
        part.executor.add_direction_square_sum(launch, torch.zeros((), dtype=torch.float64))


def test_what_a_step_asks_for_is_enumerated(monkeypatch):
    """So that the kernels that test_compiled.py compiles are all that there are."""
    from extrap_kernels.triton_kernels import variants
    from extrap_kernels.triton_kernels.executor import TritonExecutor

    asked, everything = set(), lambda n: slice(0, n)
    monkeypatch.setattr(variants, "launch", lambda variant, programs, *_: programs and asked.add(variant))
    states = [
        {"dtype": dtype, "state_dtype": state_dtype}
        for dtype in helpers.DTYPES
        for state_dtype in STATE_FORMATS
        if state_dtype == torch.float32 or arithmetic_dtype(dtype) == torch.float32
    ]
    for (rule, variant), state, perturbation in itertools.product(VARIANTS, states, helpers.FEW_PERTURBATIONS):
        # Large enough for blocks.
        params = [torch.nn.Parameter(torch.zeros(64, 64, dtype=state["dtype"], device=helpers.DEVICES["triton"]))]
        options = {**helpers.RULES[rule].variants[variant], **perturbation, "max_grad_norm": 1.0}
        optimizer = helpers.RULES[rule].optimizer(params, backend="triton", state_dtype=state["state_dtype"], **options)
        helpers.train(optimizer, steps=1)
        for grad_dtype in (state["dtype"], arithmetic_dtype(state["dtype"])):
            part = Part(TritonExecutor, optimizer, everything, everything, grad_dtype)
            for phase in Phase if perturbation["noise"] is None else [Phase.UPDATE]:
                step_parts([[part]], optimizer, phase=phase)
            if perturbation["noise"] is None:
                measure_directions(part, optimizer)
        optimizer.local_gradients = {params[0]: torch.zeros_like(params[0], dtype=torch.float32)}
        helpers.train(optimizer, steps=1)
    assert asked == set(variants.every_variant())


LAUNCHES = {
    "sgd": ({"momentum": 0.9, "noise": "uniform"}, ["Step"]),
    "rms": ({"noise": "gaussian", "noise_scale": "filter"}, ["SquareSums", "Step"]),
    "clipped": ({"max_grad_norm": 1.0}, ["SquareSums", "Step"]),
    "divided": ({"extrap_norm": "global"}, ["DirectionSquares", "Step"]),
    "lars": ({}, ["TrustNorms", "Step"]),
    "lamb": ({}, ["TrustNorms", "Step"]),
}


@pytest.mark.parametrize("name", LAUNCHES)
def test_launches_of_a_step(monkeypatch, name):
    """However many tensors there are; and the table is copied only when a gradient has moved or a scalar changed."""
    from extrap_kernels.triton_kernels import tables, variants

    options, expected = LAUNCHES[name]
    launched, copied = [], []  # copied: for each step, what its writes of the table have done
    write = tables.PinnedTable.write

    def launch(variant, programs, *_):
        if programs:
            launched.append(type(variant).__name__)

    def noted_write(table, cells):
        before = table._written
        write(table, cells)
        copied[-1].append(table._written is not before)

    monkeypatch.setattr(variants, "launch", launch)
    monkeypatch.setattr(tables.PinnedTable, "write", noted_write)
    params = helpers.zoo("triton")
    rule = helpers.RULES.get(name, helpers.RULES["sgd"])
    optimizer = rule.optimizer(params, lr=0.1, backend="triton", **options)
    helpers.set_gradients(params, seed=0)
    for p in params:
        # Laid out as the kernel reads them: others are copied to new memory in each step.
        p.grad = torch.empty_like(p).copy_(p.grad) if p.is_contiguous() else None
    for _ in range(2):
        copied.append([])
        optimizer.step()
    again = name == "divided"  # whose launches have an inner learning rate each
    assert launched == expected * 2 and [first for first, *_ in copied] == [True, again]
    if name not in ("clipped", "divided"):  # whose factors have addresses, which may be new ones
        assert copied == [[True], [False]]
    params[1].grad = params[1].grad.clone()
    params[5].grad = params[5].grad.clone()
    copied.append([])
    optimizer.step()
    assert [first for first, *_ in copied] == [True, again, True]
    optimizer.param_groups[0]["lr"] = 0.2
    copied.append([])
    optimizer.step()
    assert any(copied[-1])
