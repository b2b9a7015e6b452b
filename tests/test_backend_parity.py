"""The fast backends against `reference`: the same bits, whatever the layout, instruction set or number of threads."""

import math

import helpers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from extrap_kernels import _C, ExtrapAdam, ExtrapSGD

SGD = helpers.RULES["sgd"]


# Each instruction set, and reading tensors by their attributes.
NATIVE_SETTINGS = [*((name, True) for name in _C.instruction_sets()), (_C.instruction_set(), False)]


def use(native_setting):
    instruction_set, stable = native_setting
    _C.select_instruction_set(instruction_set)
    _C.testing.read_by_stable_interface(stable)


@pytest.fixture
def ways(native):
    """Every fast backend by name, one after the other: the native one with each of its settings."""

    def each(readings=2):
        for backend in helpers.FAST_BACKENDS:
            # The others read tensors in the same two ways, and have no instruction sets to choose from.
            for setting in NATIVE_SETTINGS if backend == "cpu" else NATIVE_SETTINGS[-readings:]:
                use(setting)
                yield backend, f"{backend} {setting}"

    return each


def noisy(direction, noise, scale):
    return {"extrapolation": direction, "noise": noise, "noise_scale": scale, "noise_std": 0.05, "seed": 2**64 - 1}


EXACT = [
    *({"extrapolation": direction, "noise": None} for direction in helpers.DIRECTIONS),
    noisy(None, "uniform", "absolute"),
    noisy("past_update", "uniform", "gradient"),
    noisy(None, "gaussian", "gradient"),
    noisy("past_update", "gaussian", "absolute"),
    helpers.EXTRAGRADIENT,
]
# Sums of squares may be rounded otherwise.
CLOSE = [noisy("past_gradient", noise, scale) for noise in ("gaussian", "uniform") for scale in ("tensor", "filter")]


def trained(backend, rule_name, variant, perturbation, dtypes=helpers.DTYPES):
    rule = helpers.RULES[rule_name]
    params = [p for dtype in dtypes for p in helpers.zoo(backend, dtype)]
    optimizer = rule.optimizer(params, lr=0.1, backend=backend, **rule.variants[variant], **perturbation)
    helpers.train(optimizer, steps=4)
    return helpers.snapshot(optimizer)


# torch's square root of float64 is not always rounded to nearest, and sums of squares depend on their order.
SINGLE = tuple(dtype for dtype in helpers.DTYPES if dtype not in (torch.float64, torch.complex128))
EXACT_DTYPES = {"sgd": helpers.DTYPES, "adam": SINGLE, "adamw": SINGLE}


@pytest.mark.parametrize("perturbation", EXACT, ids=helpers.describe)
@pytest.mark.parametrize("rule, variant", [(name, v) for name in EXACT_DTYPES for v in helpers.RULES[name].variants])
def test_same_bits(ways, rule, variant, perturbation):
    dtypes = EXACT_DTYPES[rule]
    expected = trained("reference", rule, variant, perturbation, dtypes)
    for backend, way in ways():
        helpers.assert_same_bits(trained(backend, rule, variant, perturbation, dtypes), expected, way)


@pytest.mark.parametrize("perturbation", [EXACT[1], EXACT[4], helpers.EXTRAGRADIENT], ids=helpers.describe)
@pytest.mark.parametrize("rule", [name for name in helpers.RULES if name != "sgd"])
def test_close_roundings(ways, rule, perturbation):
    params, state = trained("reference", rule, "decay", perturbation)
    expected = [*params, *(value for each in state for value in each.values())]
    for backend, way in ways():
        params, state = trained(backend, rule, "decay", perturbation)
        actual = [*params, *(value for each in state for value in each.values())]
        for a, b in zip(actual, expected, strict=True):
            ulp = torch.finfo(b.dtype).eps * b.abs().amax() if b.numel() else 0
            assert ((a.cpu() - b).abs() <= 4 * ulp).all(), way


@pytest.mark.parametrize("perturbation", CLOSE, ids=helpers.describe)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=helpers.describe)
def test_close_noise(ways, dtype, perturbation):
    case = ("sgd", "nesterov")
    expected, expected_state = trained("reference", *case, perturbation, (dtype,))
    silent, _ = trained("reference", *case, {**perturbation, "noise_std": 0.0}, (dtype,))
    for backend, way in ways():
        params, state = trained(backend, *case, perturbation, (dtype,))
        helpers.assert_same_bits(state, expected_state, way)
        for p, q, without in zip(params, expected, silent):
            ulp = torch.finfo(dtype).eps * q.abs() + torch.finfo(dtype).smallest_normal
            assert ((p.cpu() - q).abs().double() <= 1e-6 * (q.double() - without).abs() + ulp).all(), way


def large_params(backend, dtype):
    """Enough to bypass the caches when written: one tensor in whole vectors, one at an odd address."""
    numel = (1 << 22) // dtype.itemsize + 37
    whole = torch.linspace(-1, 1, numel, dtype=torch.float64).to(helpers.DEVICES[backend], dtype)
    return [torch.nn.Parameter(whole.clone()), torch.nn.Parameter(whole[1 : numel // 4])]


def train_large(backend, dtype, perturbation):
    optimizer = SGD.optimizer(
        large_params(backend, dtype), lr=0.1, momentum=0.9, nesterov=True, backend=backend, **perturbation
    )
    helpers.train(optimizer, steps=2)
    return helpers.snapshot(optimizer)


@pytest.mark.parametrize("perturbation", [EXACT[1], EXACT[3]], ids=helpers.describe)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=helpers.describe)
def test_same_bits_of_large_tensors(ways, threads, dtype, perturbation):
    expected = train_large("reference", dtype, perturbation)
    threads(2)
    for backend, way in ways(readings=1):
        helpers.assert_same_bits(train_large(backend, dtype, perturbation), expected, way)


@pytest.mark.parametrize("backend", helpers.FAST_BACKENDS)
def test_number_of_threads_changes_nothing_past_the_caches(backend, threads):
    results = []
    for count in (1, 2, 5):
        threads(count)
        results.append(train_large(backend, torch.float32, EXACT[1]))
    helpers.assert_same_bits(results[1], results[0])
    helpers.assert_same_bits(results[2], results[0])


THREADED = [("sgd", perturbation) for perturbation in (*CLOSE, helpers.EXTRAGRADIENT)]
THREADED += [(rule, CLOSE[0]) for rule in helpers.RULES if rule != "sgd"]


@pytest.mark.parametrize("rule, perturbation", THREADED, ids=helpers.describe)
@pytest.mark.parametrize("backend", helpers.FAST_BACKENDS)
def test_number_of_threads_changes_nothing(backend, threads, rule, perturbation):
    options = {**helpers.RULES[rule].variants["decay"], "max_grad_norm": 1.0, **perturbation}
    results = []
    for count in (1, 2, 5):
        threads(count)
        large = torch.linspace(-1, 1, 5 * 40_000, device=helpers.DEVICES[backend])
        params = [*helpers.zoo(backend), torch.nn.Parameter(large.view(1000, 200))]
        optimizer = helpers.RULES[rule].optimizer(params, lr=0.1, backend=backend, **options)
        helpers.train(optimizer, steps=2)
        results.append(helpers.snapshot(optimizer))
    helpers.assert_same_bits(results[1], results[0])
    helpers.assert_same_bits(results[2], results[0])


SPECIAL = (math.inf, -math.inf, math.nan, -0.0, 0.0, 1e-42, -6e-8, 1e-40, 65519.0, 65520.0, 3.4e38)


@st.composite
def strided(draw, shape):
    """Strides and offset of a tensor of `shape`: any order of dimensions in memory, with gaps."""
    order = draw(st.permutations(range(len(shape))))
    strides, reach = [0] * len(shape), draw(st.sampled_from([1, 1, 1, 2]))
    for dim in order:
        strides[dim] = reach
        reach *= max(1, shape[dim]) + draw(st.sampled_from([0, 0, 0, 1]))
    return tuple(strides), draw(st.integers(0, 3))


@st.composite
def parameters(draw):
    shape = draw(st.lists(st.integers(0, 6), max_size=4) | st.lists(st.integers(1, 400), min_size=1, max_size=1))
    return {
        "shape": shape,
        "layout": draw(strided(shape)),
        "dtype": draw(st.sampled_from(helpers.DTYPES)),
        "grad_layout": draw(strided(shape) | st.none()),  # None: expanded from one element, as after p.sum().backward()
        "local_layout": draw(st.none() | strided(shape)),
        "conjugated": draw(st.booleans()),
        "special": draw(st.booleans()),
        "first_step": draw(st.integers(0, 2)),
    }


@st.composite
def groups(draw):
    nesterov = draw(st.booleans())
    extrapolation = draw(st.sampled_from([*helpers.DIRECTIONS, "extragradient"]))
    return {
        "params": draw(st.lists(parameters(), min_size=1, max_size=5)),
        "lr": draw(st.floats(0, 2)),
        "momentum": draw(st.floats(0.1, 1)) if nesterov else draw(st.sampled_from([0.0, 0.9])),
        "dampening": 0.0 if nesterov else draw(st.sampled_from([0.0, 0.5])),
        "nesterov": nesterov,
        "betas": draw(st.sampled_from([(0.9, 0.999), (0.0, 0.5)])),
        "eps": draw(st.sampled_from([1e-8, 0.1])),
        "weight_decay": draw(st.sampled_from([0.0, 0.1])),
        "decoupled_weight_decay": draw(st.booleans()),
        "maximize": draw(st.booleans()),
        "extrapolation": extrapolation,
        "extrap_lr": draw(st.none() | st.floats(-2, 2)),
        "extrap_scale": draw(st.sampled_from(["absolute", "adaptive"])),
        "noise": None if extrapolation == "extragradient" else draw(st.sampled_from([None, "uniform"])),
        "noise_scale": draw(st.sampled_from(["absolute", "gradient"])),
        "seed": draw(st.integers(0, 2**64 - 1)),
        # Of groups whose parameters can have it.
        "state_dtype": draw(st.sampled_from([torch.float32, torch.bfloat16])),
    }


def laid_out(values, layout):
    strides, offset = layout
    size = offset + 1 + sum(stride * (n - 1) for stride, n in zip(strides, values.shape) if n > 0)
    memory = values.new_zeros(max(size, 0))
    return memory.as_strided(values.shape, strides, offset).copy_(values)


def gradient_for(param, spec, layout, seed):
    if layout is None:
        return helpers.random_like(param.new_zeros(()), seed).expand(param.shape)
    values = helpers.random_like(param, seed)
    if spec["special"]:
        flat = (torch.view_as_real(values) if values.is_complex() else values).view(-1)
        flat[: len(SPECIAL)] = torch.tensor(SPECIAL, dtype=torch.float64)[: flat.numel()].to(flat.dtype)
    gradient = laid_out(values, layout)
    return gradient.conj() if spec["conjugated"] else gradient


def train_drawn(backend, optimizer_type, drawn, grad_scale, pauses):
    specs = [spec for group in drawn for spec in group["params"]]
    params = []
    for k, spec in enumerate(specs):
        dtype = spec["dtype"] if optimizer_type is ExtrapSGD or spec["dtype"] in SINGLE else torch.float32
        empty = torch.empty(spec["shape"], dtype=dtype, device=helpers.DEVICES[backend])
        values = helpers.random_like(empty, k)
        params.append(torch.nn.Parameter(laid_out(values, spec["layout"])))
    rest = iter(params)
    groups = [{**group, "params": [next(rest) for _ in group["params"]]} for group in drawn]
    for group in groups:
        if any(param.dtype not in (torch.float32, torch.bfloat16, torch.float16) for param in group["params"]):
            group["state_dtype"] = torch.float32
    optimizer = optimizer_type(groups, lr=0.1, backend=backend)
    optimizer.grad_scale = grad_scale

    def feed(step, seed):
        for k, (p, spec) in enumerate(zip(params, specs)):
            p.grad = None
            if step < spec["first_step"]:
                continue
            p.grad = gradient_for(p, spec, spec["grad_layout"], seed + k)
            if spec["local_layout"] is not None:
                optimizer.local_gradients[p] = gradient_for(p, spec, spec["local_layout"], seed + k + 50)

    for step in range(4):
        if any(group["extrapolation"] == "extragradient" for group in drawn):
            feed(step, 1000 * step + 500)
            optimizer.extrapolate(grad_scale)
        feed(step, 1000 * step)
        optimizer.step()
        if step in pauses:
            optimizer.eval()
            optimizer.train()
    return helpers.snapshot(optimizer)


# `make fuzz` draws others: by chance, from a seed that it prints.
@given(
    optimizer_type=st.sampled_from([ExtrapSGD, ExtrapAdam]),
    drawn=st.lists(groups(), min_size=1, max_size=3),
    grad_scale=st.sampled_from([None, torch.tensor(1024.0), torch.tensor(3.0)]),
    pauses=st.sets(st.integers(0, 3)),
    native_setting=st.sampled_from(NATIVE_SETTINGS),
)
def test_same_bits_of_anything(native, optimizer_type, drawn, grad_scale, pauses, native_setting):
    use(native_setting)
    expected = train_drawn("reference", optimizer_type, drawn, grad_scale, pauses)
    for backend in helpers.FAST_BACKENDS:
        helpers.assert_same_bits(train_drawn(backend, optimizer_type, drawn, grad_scale, pauses), expected, backend)
