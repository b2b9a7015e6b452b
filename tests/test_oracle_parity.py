"""Every backend computes the algorithm of docs/design.md; wrong algorithms fail the same check."""

import helpers
import oracle
import pytest
import torch

STEPS = 8
NEXT_SCALE = {"absolute": "filter", "filter": "gradient", "gradient": "tensor", "tensor": "absolute"}


def schedule(group, t):
    """Options change in mid-run, as schedulers do."""
    group["lr"] = 0.1 / (1 + t % 3)
    if t == 3:
        group["extrap_lr"] = 0.07
    if t == 5 and "momentum" in group:
        group["momentum"] *= 0.5
    if t == 5 and "betas" in group:
        group["betas"] = (0.7, 0.9)
    if t == 6:
        group["noise_std"] *= 2
        group["noise_scale"] = NEXT_SCALE[group["noise_scale"]]
    if t == 7 and group["extrapolation"] == "past_gradient":
        group["extrapolation"] = "past_update"


def follow(optimizer, oracles):
    """Steps with random gradients, some of them late or local, checked against the oracles after each change."""
    params = helpers.parameters_of(optimizer)
    group = optimizer.param_groups[0]

    def feed(seed):
        helpers.set_gradients(params, seed)
        for p in params[1::4]:
            p.grad = p.grad if t >= 2 else None
        optimizer.local_gradients = {p: helpers.random_like(p, seed + 500) for p in params[::3]}
        return [(o, p.grad, optimizer.local_gradients.get(p)) for o, p in zip(oracles, params) if p.grad is not None]

    for t in range(STEPS):
        schedule(group, t)
        if group["extrapolation"] == "extragradient":
            for expected, g, l in feed(100 + t):
                expected.extrapolate(group, g, l)
            optimizer.extrapolate()
            oracle.assert_matches(optimizer, oracles)
        for expected, g, l in feed(t):
            expected.step(group, g, l)
        optimizer.step()
        oracle.assert_matches(optimizer, oracles)


def check(backend, rule, options, dtype, oracle_type):
    params = helpers.zoo(backend, dtype)
    optimizer = rule.optimizer(params, lr=0.1, extrap_ratio=1.5, backend=backend, **options)
    optimizer.rank = 3
    follow(optimizer, [oracle_type(p, index, rank=3) for index, p in enumerate(params)])


# Each variant with each direction, and with extragradient; the noises take turns.
VARIANTS = [
    pytest.param(*case.values, perturbation, id=f"{case.id}-{helpers.describe(perturbation)}")
    for k, case in enumerate(helpers.RULE_CASES)
    for perturbation in [
        *({"extrapolation": d, **helpers.NOISES[(k + 3 * j) % 9]} for j, d in enumerate(helpers.DIRECTIONS)),
        helpers.EXTRAGRADIENT,
    ]
]


@pytest.mark.parametrize("rule, options, perturbation", VARIANTS)
def test_rules_follow_the_oracle(backend, rule, options, perturbation):
    check(backend, rule, {**options, **perturbation}, torch.float32, rule.oracle)


# Each dtype with each rule, and with a third of the perturbations; each of those with each rule. These two with all.
ALL_PERTURBATIONS = (torch.float32, torch.bfloat16)
DTYPES = [
    (list(helpers.RULES)[(d + p) % len(helpers.RULES)], dtype, perturbation)
    for d, dtype in enumerate(helpers.DTYPES)
    for p, perturbation in enumerate(helpers.PERTURBATIONS)
    if p % 3 == 0 or dtype in ALL_PERTURBATIONS
]


@pytest.mark.parametrize("name, dtype, perturbation", DTYPES, ids=helpers.describe)
def test_dtypes_follow_the_oracle(backend, name, dtype, perturbation):
    rule = helpers.RULES[name]
    check(backend, rule, {**rule.variants["decay"], **perturbation}, dtype, rule.oracle)


# Each rule with the other directions, in all dtypes and under all noises by turns.
OTHERS = [
    (name, helpers.DTYPES[(k + 3 * d) % 6], {"extrapolation": direction, **helpers.NOISES[(2 * k + d) % 9]})
    for k, name in enumerate(helpers.RULES)
    for d, direction in enumerate(("momentum", "gradient_difference"))
]


@pytest.mark.parametrize("name, dtype, perturbation", OTHERS, ids=helpers.describe)
def test_other_directions_follow_the_oracle(backend, name, dtype, perturbation):
    """Also against the direction."""
    rule = helpers.RULES[name]
    check(backend, rule, {**rule.variants["decay"], "extrap_lr": -0.15, **perturbation}, dtype, rule.oracle)


MOMENTUM = {"momentum": 0.9, "weight_decay": 0.1}
UNIFORM = {"noise": "uniform", "noise_std": 0.05}


class DecayAtY(oracle.SGD):
    options = MOMENTUM

    def decay_point(self):
        return self.y


class NesterovDropped(oracle.SGD):
    options = {"momentum": 0.9, "nesterov": True}

    def update(self, o, g, l):
        return super().update({**o, "nesterov": False}, g, l)


class ExtrapolationSignFlipped(oracle.SGD):
    options = {}

    def inner_rate(self, o):
        return -super().inner_rate(o)


class OuterRateInside(oracle.SGD):
    options = {}

    def inner_rate(self, o):
        return self.constant(o["lr"])


class DampeningInFirstStep(oracle.SGD):
    options = {"momentum": 0.9, "dampening": 0.3}

    def gradient_weight(self, o):
        return 1 - o["dampening"]


class DecaySwapped(oracle.SGD):
    options = MOMENTUM

    def step(self, o, *gradients):
        super().step({**o, "decoupled_weight_decay": not o["decoupled_weight_decay"]}, *gradients)


class DecayBeforeMaximize(oracle.SGD):
    options = {"maximize": True, "weight_decay": 0.1}

    def prepared(self, o, grad, scale):
        return -super().prepared({**o, "maximize": False}, grad, scale)


class PastUpdateAlongGradient(oracle.SGD):
    options = {"momentum": 0.9, "extrapolation": "past_update"}

    def step(self, o, *gradients):
        super().step({**o, "extrapolation": "past_gradient"}, *gradients)


class LocalGradientIgnored(oracle.SGD):
    options = {}

    def step(self, o, g, l):
        super().step(o, g)


class LanesSwapped(oracle.SGD):
    options = UNIFORM

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.positions = self.positions ^ 1


class StepCountFromZero(oracle.SGD):
    options = UNIFORM

    def noise(self, *args):
        self.count -= 1
        n = super().noise(*args)
        self.count += 1
        return n


class NoiseOfAnotherParameter(StepCountFromZero):
    def noise(self, *args):
        self.index += 1
        n = oracle.SGD.noise(self, *args)
        self.index -= 1
        return n


class RankIgnored(oracle.SGD):
    options = UNIFORM

    def noise_key(self, o):
        return o["seed"]


class RmsOfNewX(oracle.SGD):
    options = {**UNIFORM, "noise_scale": "tensor"}

    def noise_point(self, before):
        return self.x


class FilterScaleForVectors(oracle.SGD):
    options = {**UNIFORM, "noise_scale": "filter"}

    def noise(self, o, *rest):
        return super().noise({**o, "noise_scale": "tensor" if self.dims < 2 else "filter"}, *rest)


class NoiseScaledByAveragedGradient(oracle.SGD):
    options = {**UNIFORM, "noise_scale": "gradient"}

    def noise(self, o, x, g, l):
        return super().noise(o, x, g, g)


class MomentsBiased(oracle.Adam):
    options = {}

    def unbiased(self, moment, beta, count):
        return moment


class EpsInsideTheRoot(oracle.Adam):
    options = {"eps": 1e-3}

    def denominator(self, o, second_moment, count):
        return (self.unbiased(second_moment, o["betas"][1], count) + self.constant(o["eps"])).sqrt()


class AlongPlainGradient:
    options = {}

    def update(self, o, g, l):
        u, _ = super().update(o, g, l)
        return u, l


class ExtrapolationNotPreconditioned(AlongPlainGradient, oracle.Adam):
    pass


class MomentsAdvancedTwice(oracle.Adam):
    options = helpers.EXTRAGRADIENT

    def first_direction(self, o, g, l):
        self.buffers["exp_avg_sq"] = self.second_moment(o, g)
        return l / self.denominator(o, self.buffers["exp_avg_sq"], self.count + 1)


class OldSecondMomentInFirstHalf(oracle.Adam):
    options = helpers.EXTRAGRADIENT

    def second_moment(self, o, g):
        old = self.buffers.get("exp_avg_sq")
        return super().second_moment(o, g) if self.updating or old is None else old

    def update(self, o, g, l):
        self.updating = True
        directions = super().update(o, g, l)
        self.updating = False
        return directions

    updating = False


class FirstHalfPreconditionedByLocalGradient(oracle.Adam):
    options = helpers.EXTRAGRADIENT

    def first_direction(self, o, g, l):
        return super().first_direction(o, l, l)


class DecayCoupled(oracle.Adam):
    options = {"weight_decay": 0.1, "decoupled_weight_decay": True}

    def decay(self, o, *, decoupled):
        return super().decay(o, decoupled=not decoupled)


class TrustAfterDecay(oracle.LARS):
    options = {"weight_decay": 0.5, "trust_coefficient": 0.3}

    def trust(self, o):
        self.raw = self.raw + self.constant(o["weight_decay"]) * self.x
        return super().trust(o)


class TrustLeftOutOfTheExtrapolation(AlongPlainGradient, oracle.LARS):
    pass


class TrustLeftOutOfTheFirstHalf(oracle.LARS):
    options = helpers.EXTRAGRADIENT

    def first_direction(self, o, g, l):
        return l


class TrustOfTheLocalGradient(oracle.LARS):
    options = {}

    def update(self, o, g, l):
        self.raw = l
        return super().update(o, g, l)


class DecayNotScaled(oracle.LAMB):
    options = {"weight_decay": 0.5}

    def update(self, o, g, l):
        u, z = super().update({**o, "weight_decay": 0.0}, g, l)
        return u + self.constant(o["weight_decay"]) * self.x, z


class ExtrapolationScaled(oracle.LAMB):
    options = {}

    def update(self, o, g, l):
        u, z = super().update(o, g, l)
        plain, _ = oracle.Adam.update(self, o, g, l)
        return u, z * (u.norm() / plain.norm() if u.value.size else self.constant(1.0))


class DecayExtrapolated(oracle.LAMB):
    options = {"weight_decay": 0.5}

    def prepared(self, o, grad, scale):
        return super().prepared(o, grad, scale) + self.constant(o["weight_decay"]) * self.x


WRONG = [value for value in list(globals().values()) if isinstance(value, type) and issubclass(value, oracle.Oracle)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=helpers.describe)
@pytest.mark.parametrize("wrong", WRONG, ids=lambda rule: rule.__name__)
def test_wrong_rules_fail_the_check(wrong, dtype):
    right = next(base for base in wrong.__mro__ if base.__module__ == oracle.__name__)
    rule = next(rule for rule in helpers.RULES.values() if rule.oracle is right)
    check("reference", rule, wrong.options, dtype, right)
    with pytest.raises(AssertionError, match="times what rounding explains"):
        check("reference", rule, wrong.options, dtype, wrong)
