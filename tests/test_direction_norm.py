"""extrap_norm="global": the direction is divided by its norm over all parameters of all groups that ask for it."""

import copy

import helpers
import oracle
import pytest
import torch

from extrap_kernels import ExtrapAdamW, ExtrapLAMB, ExtrapLARS, ExtrapSGD

RADIUS = 0.3
GRADIENT = {"extrapolation": "past_gradient"}
MOMENTUM = {"extrapolation": "momentum"}
DIRECTIONS = [GRADIENT, {"extrapolation": "gradient_difference"}, {"extrapolation": "past_update"}, MOMENTUM]
NAMES = ("scalar", "empty", "three", "matrix", "channels_last", "transposed", "columns", "blocks")
RULES = {
    "plain": (ExtrapSGD, oracle.SGD, {"weight_decay": 0.1}),
    "momentum": (ExtrapSGD, oracle.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "adam": (ExtrapAdamW, oracle.Adam, {"weight_decay": 0.1, "eps": 1e-3}),
    "lars": (ExtrapLARS, oracle.LARS, {"momentum": 0.9, "trust_coefficient": 0.3}),
    "lamb": (ExtrapLAMB, oracle.LAMB, {}),
}
ADAPTIVE = {"extrap_scale": "adaptive"}
CASES = [
    (rule, {**direction, **scale})
    for rule in RULES
    for direction in [*DIRECTIONS, helpers.EXTRAGRADIENT]
    for scale in ({}, ADAPTIVE)
    if (direction is not MOMENTUM or rule != "plain")
    if (direction is MOMENTUM and not scale) or rule not in ("lars", "lamb")
]


def divided(kind, kept):
    """An oracle whose inner rate is a radius. `kept`: of all those that share the norm, the squares of this step."""

    class Divided(kind):
        def inner_rate(self, o):
            norm = sum(kept) ** 0.5
            return self.constant(o["extrap_lr"] / norm if norm else 0.0)

    return Divided


def squares(expected, group, g, l, scale, half):
    """Of what an oracle will extrapolate along, taken on a copy."""
    trial = copy.deepcopy(expected)
    unit = trial.x.value if group["extrap_scale"] == "adaptive" else 1.0
    if not half and group["extrapolation"] == "momentum":
        moment = trial.first_moment()
        return 0.0 if moment is None else float(((moment.value * unit) ** 2).sum())
    trial.raw = trial.unscaled(group, g, scale)
    g, l = (trial.prepared(group, each, scale) for each in (g, g if l is None else l))
    if half:
        along = trial.first_direction(group, g, l)
    else:
        trial.count += 1
        u, z = trial.update(group, g, l - g if group["extrapolation"] == "gradient_difference" else l)
        along = u if group["extrapolation"] == "past_update" else z
    return float(((along.value * unit) ** 2).sum())


def make(backend, rule, direction, dtype=torch.float32, **options):
    """Two groups that share a norm, one of them in half precision, and one that does not ask for it."""
    groups = [
        {"params": helpers.zoo(backend, dtype, NAMES)},
        {"params": helpers.zoo(backend, torch.bfloat16, NAMES, seed=1), "extrap_lr": -2 * RADIUS},
        {"params": helpers.zoo(backend, dtype, NAMES[:3], seed=2), "extrap_norm": None},
    ]
    optimizer_type, _, own = RULES[rule]
    options = {"lr": 0.1, "extrap_lr": RADIUS, "extrap_norm": "global", **own, **direction, **options}
    return optimizer_type(groups, backend=backend, **options)


def feed(optimizer, seed):
    params = helpers.parameters_of(optimizer)
    helpers.set_gradients(params, seed)
    for k, p in enumerate(params):
        if k % 2:
            optimizer.local_gradients[p] = helpers.random_like(p, seed + 500 + k)
    if seed == 0:
        params[3].grad = None  # a late one


@pytest.mark.parametrize("rule, direction", CASES, ids=helpers.describe)
def test_distance_is_the_radius(backend, rule, direction):
    """Of groups, dtypes and layouts together, with clipped gradients under GradScaler, as the oracle has it."""
    optimizer = make(backend, rule, direction, max_grad_norm=20.0)
    optimizer.grad_scale = 3.0
    kept, kind = [], RULES[rule][1]
    grouped = [(group, p) for group in optimizer.param_groups for p in group["params"]]
    oracles = [
        (divided(kind, kept) if group["extrap_norm"] else kind)(p, index) for index, (group, p) in enumerate(grouped)
    ]

    def expect(half):
        norm = oracle.gradient_norm([p.grad for _, p in grouped if p.grad is not None], scale=3.0)
        stepped = [
            (expected, group, p.grad, optimizer.local_gradients.get(p), 3.0)
            for expected, (group, p) in zip(oracles, grouped)
            if p.grad is not None
        ]
        for expected in oracles:
            expected.clip = min(1.0, 20.0 / (norm + 1e-6))
        kept[:] = [squares(*each, half) for each in stepped if each[1]["extrap_norm"]]
        for expected, *each in stepped:
            (expected.extrapolate if half else expected.step)(*each)

    for t in range(3):
        if direction["extrapolation"] == "extragradient":
            feed(optimizer, 2 * t)
            expect(half=True)
            optimizer.extrapolate(grad_scale=3.0)
            oracle.assert_matches(optimizer, oracles)
            t = 2 * t + (t > 0)  # late again
        feed(optimizer, t)
        expect(half=False)
        optimizer.step()
        oracle.assert_matches(optimizer, oracles)
    assert sum(kept) > 0 or direction["extrapolation"] == "extragradient"


def distance(optimizer, params):
    return sum(float((optimizer.base_of(p).double() - p.detach().double()).square().sum()) for p in params) ** 0.5


def momenta(optimizer):
    state = optimizer.float32_state_dict()["state"]
    return [entries.get("exp_avg", entries.get("momentum_buffer")).double() for entries in state.values()]


@pytest.mark.parametrize("state_dtype", [torch.float32, torch.bfloat16, torch.uint8], ids=helpers.describe)
@pytest.mark.parametrize("optimizer_type", [ExtrapSGD, ExtrapAdamW, ExtrapLAMB])
def test_momentum_is_divided_by_the_norm_before_the_step(backend, optimizer_type, state_dtype):
    """In every format; the first step does not extrapolate."""
    params = [torch.nn.Parameter(helpers.random_like(p, 0)) for p in helpers.zoo(backend, names=("matrix", "blocks"))]
    params += [torch.nn.Parameter(torch.ones(64, 80, device=params[0].device))]
    own = {"momentum": 0.9} if optimizer_type is ExtrapSGD else {}
    optimizer = optimizer_type(
        params,
        lr=0.1,
        extrap_lr=RADIUS,
        extrap_norm="global",
        state_dtype=state_dtype,
        backend=backend,
        **MOMENTUM,
        **own,
    )
    helpers.train(optimizer, steps=1)
    assert distance(optimizer, params) == 0
    for t in range(3):
        before = momenta(optimizer)
        helpers.train(optimizer, steps=1, seed=7 + t)
        after = momenta(optimizer)
        norms = [sum(float(m.square().sum()) for m in moments) ** 0.5 for moments in (before, after)]
        tolerance = 1e-5 if state_dtype == torch.float32 else 0.02  # of what is rounded after the step
        assert distance(optimizer, params) == pytest.approx(RADIUS * norms[1] / norms[0], rel=tolerance)


@pytest.mark.parametrize("direction", [GRADIENT, MOMENTUM, helpers.EXTRAGRADIENT], ids=helpers.describe)
@pytest.mark.parametrize("spoil", [0.0, torch.inf, torch.nan])
def test_norms_of_zero_or_not_finite_extrapolate_nothing(backend, direction, spoil):
    """Not even where the direction itself is not finite."""
    (param,) = helpers.zoo(backend, names=("matrix",))
    optimizer = ExtrapSGD(
        [param], lr=0.0, momentum=0.9, extrap_lr=RADIUS, extrap_norm="global", backend=backend, **direction
    )
    start = param.detach().clone()
    for t in range(2):
        param.grad = torch.zeros_like(param)
        param.grad[0, 0] = spoil
        if direction is helpers.EXTRAGRADIENT:
            optimizer.extrapolate()
        elif t == 0 or direction is not MOMENTUM:
            # A momentum is what it was before the step; afterwards the base itself is spoilt.
            optimizer.step()
        helpers.assert_same_bits(param.detach()[1:], start[1:])
        if direction is helpers.EXTRAGRADIENT:
            helpers.assert_same_bits(param.detach(), start)
            optimizer.cancel_extrapolation()


def test_off_changes_no_bit_and_state_dicts_resume(backend):
    """Options are saved; a run that was interrupted goes on with the same bits."""
    through, resumed = (make(backend, "momentum", MOMENTUM) for _ in range(2))
    for optimizer in (through, resumed):
        helpers.train(optimizer, steps=3)
    saved = copy.deepcopy(resumed.state_dict())
    other = make(backend, "momentum", MOMENTUM, extrap_norm=None)
    for p, q in zip(helpers.parameters_of(other), helpers.parameters_of(resumed)):
        p.data.copy_(q.data)
    other.load_state_dict(saved)
    assert [group["extrap_norm"] for group in other.param_groups] == ["global", "global", None]
    for optimizer in (through, other):
        helpers.train(optimizer, steps=2, seed=5)
    helpers.assert_same_bits(helpers.snapshot(other), helpers.snapshot(through))


@pytest.mark.parametrize("scale", [{}, ADAPTIVE], ids=helpers.describe)
@pytest.mark.parametrize("direction", [*DIRECTIONS, helpers.EXTRAGRADIENT], ids=helpers.describe)
def test_bits_are_those_of_the_reference(backend, direction, scale):
    """Norms are taken in float64 and may differ there in the last bit, which a float32 hardly ever shows."""
    optimizer, reference = (make(name, "momentum", direction, **scale) for name in (backend, "reference"))
    for each in (optimizer, reference):
        helpers.train(each, steps=3)
    helpers.assert_same_bits(helpers.snapshot(optimizer)[0], helpers.snapshot(reference)[0])


def test_tensor_learning_rates_are_divided_where_they_are(backend):
    """With the bits of numbers."""
    by_number, by_tensor = (make(backend, "adam", GRADIENT) for _ in range(2))
    device = helpers.DEVICES[backend]
    for group in by_tensor.param_groups:
        group["extrap_lr"] = torch.tensor([group["extrap_lr"]], dtype=torch.float64, device=device)
    for optimizer in (by_number, by_tensor):
        helpers.train(optimizer, steps=2)
    helpers.assert_same_bits(helpers.snapshot(by_tensor), helpers.snapshot(by_number))


def test_adaptive_radius_is_in_units_of_the_weights(backend):
    """ASAM: the distance of y from x, each number over its weight, is the radius; weights that are 0 do not move."""
    params = helpers.zoo(backend, names=("matrix", "blocks"))
    options = {"extrap_lr": RADIUS, "extrap_norm": "global", **ADAPTIVE, **helpers.EXTRAGRADIENT}
    optimizer = ExtrapSGD(params, lr=0.1, backend=backend, **options)
    with torch.no_grad():
        params[0][0, :2] = 0.0
    helpers.set_gradients(params, seed=0)
    optimizer.extrapolate()
    distances = [((optimizer.base_of(p) - p) / optimizer.base_of(p)).detach().double() for p in params]
    assert distances[0][0, :2].isnan().all()
    norm = sum(float(d.nan_to_num().square().sum()) for d in distances) ** 0.5
    assert norm == pytest.approx(RADIUS, rel=1e-5)


@pytest.mark.parametrize("optimizer_type", [ExtrapLARS, ExtrapLAMB])
def test_rules_with_norms_refuse_the_adaptive_scale_with_it(backend, optimizer_type):
    options = {**MOMENTUM, **ADAPTIVE, "momentum": 0.9} if optimizer_type is ExtrapLARS else {**MOMENTUM, **ADAPTIVE}
    optimizer = optimizer_type(helpers.zoo(backend, names=["matrix"]), backend=backend, **options)
    helpers.train(optimizer, steps=1)
    with pytest.raises(ValueError, match="Invalid extrap_scale value: 'adaptive' with extrap_norm='global': LA"):
        optimizer_type(helpers.zoo(backend), extrap_norm="global", **options)


@pytest.mark.parametrize("optimizer_type", [ExtrapLARS, ExtrapLAMB])
def test_rules_with_norms_take_it_along_the_momentum_alone(backend, optimizer_type):
    match = "Invalid extrap_norm value: 'global' with extrapolation='past_gradient': LA.* 'momentum'|='momentum'"
    with pytest.raises(ValueError, match=match):
        optimizer_type(helpers.zoo(backend), extrap_norm="global")
    optimizer = optimizer_type(helpers.zoo(backend), backend=backend)
    optimizer.param_groups[0]["extrap_norm"] = "global"
    before = helpers.snapshot(optimizer)
    helpers.set_gradients(helpers.parameters_of(optimizer), seed=0)
    with pytest.raises(ValueError, match=match):
        optimizer.step()
    helpers.assert_same_bits(helpers.snapshot(optimizer), before)


@helpers.needs_emulation
@pytest.mark.parametrize("state_dtype", [torch.float32, torch.bfloat16, torch.uint8], ids=helpers.describe)
def test_momentum_costs_one_launch_and_one_read_of_it(state_dtype):
    from bench import accesses
    from extrap_kernels import _C

    def cost(**options):
        options = {"momentum": 0.9, "state_dtype": state_dtype, **MOMENTUM, **options}
        traffic = accesses.of_step(ExtrapSGD, torch.float32, torch.float32, options)
        param = torch.nn.Parameter(torch.ones(2))
        optimizer = ExtrapSGD([param], backend="cuda-emulated", **options)
        param.grad = torch.ones(2)
        _C.testing.emulated_launches()
        optimizer.step()
        return traffic.bytes, _C.testing.emulated_launches()

    (plain, plain_launches), (normed, normed_launches) = cost(), cost(extrap_norm="global")
    assert (plain_launches, normed_launches) == (1, 2)
    # Of blocks, lanes that share an exponent ask for it each: a quarter of a byte for each number.
    assert normed - plain == pytest.approx(
        {torch.float32: 4, torch.bfloat16: 2, torch.uint8: 1.25}[state_dtype], abs=0.01
    )
