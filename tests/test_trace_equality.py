"""C++, the reference and Triton do the same operations in the same order: their results are equal for all inputs.

Each writing runs on numbers that record what is done to them: the templates of ``csrc/core``
(``csrc/testing/trace.h``), ``step_parameter`` of the reference, and Triton's ``step_kernel``. The expressions that they
store are brought to one form by identities that hold bit for bit (``tracing/canonical.py``), and compared. Scalars take
part by their values, rounded as each writing rounds them.

Not claimed: which elements the drivers step, and how formats round to nearest even and multiply-adds once. That is
tested by samples, elsewhere.
"""

import itertools
from dataclasses import replace

import helpers
import pytest
import torch
from tracing import comparison, native_writing, reference_writing
from tracing.canonical import Canonical
from tracing.case import Case
from tracing.editing import edited
from tracing.recorded import Recorded
from tracing.triton_writing import TritonWriting

from extrap_kernels import scalars
from extrap_kernels.launch import Phase
from extrap_kernels.options import CODES
from extrap_kernels.rules import every_rule

pytestmark = helpers.needs_emulation  # traces are built with it
VARIANTS = [(spec, buffers) for spec in every_rule().values() for buffers in spec.variants()]
DIRECTIONS = [(Phase.UPDATE, name) for name in CODES["extrapolation"]] + [(Phase.EXTRAPOLATE, "extragradient")]
FORMATS = [(torch.float64, torch.float64)]
FORMATS += [(low, grad) for low in (torch.bfloat16, torch.float16) for grad in (low, torch.float32)]
FLAGS = [s.name for s in scalars.SCALARS if s.is_option and s.dtype == "int64" and s.name not in CODES]
SCALED = {"grad_scale": 3.7, "clip": 0.77}
KEY = 0x0123456789ABCDEF


@pytest.fixture(scope="module")
def triton():
    return TritonWriting()


def every_case(spec, buffers):
    """Each combination of flags, decay and local gradient; half of them with gradients that are scaled and clipped."""
    for *flags, decays, has_local in itertools.product((False, True), repeat=len(FLAGS) + 2):
        options = dict(zip(FLAGS, flags))
        options = options if decays else {**options, "weight_decay": 0.0}
        scaling = SCALED if sum((*flags, has_local)) % 2 else {}
        yield Case(spec, buffers, options, has_local=has_local, step=1 if sum((*flags, decays)) % 2 else 7, **scaling)


def difference(case, triton, rule=None):
    native = native_writing.step(case)
    precision = str(case.arithmetic).split(".")[-1]
    for name, writing in (("reference", reference_writing.step(case, rule)), ("Triton", triton.step(case))):
        found = comparison.difference(native, writing, name, precision)
        if found is not None:
            return f"{case}\n{found}"
    return None


def variant_id(value):
    return f"{value[0].name}-{len(value[1])}"


@pytest.mark.parametrize("phase, extrapolation", DIRECTIONS)
@pytest.mark.parametrize("variant", VARIANTS, ids=variant_id)
def test_steps(variant, phase, extrapolation, triton):
    for case in every_case(*variant):
        case = case.with_options(extrapolation=extrapolation).in_phase(phase)
        assert not (found := difference(case, triton)), found


@pytest.mark.parametrize("phase, extrapolation", DIRECTIONS)
@pytest.mark.parametrize("param, gradient", FORMATS)
@pytest.mark.parametrize("variant", VARIANTS, ids=variant_id)
def test_formats(variant, param, gradient, phase, extrapolation, triton):
    options = {**dict.fromkeys(FLAGS, True), "extrapolation": extrapolation}
    for decoupled, step in ((True, 7), (False, 1000)):
        options["decoupled_weight_decay"] = decoupled
        case = Case(*variant, options, phase, param, gradient, has_local=True, step=step, **SCALED)
        assert not (found := difference(case, triton)), found


@pytest.mark.parametrize("phase, extrapolation", DIRECTIONS)
@pytest.mark.parametrize("param, gradient", [(torch.float32, torch.float32), *FORMATS])
@pytest.mark.parametrize("variant", VARIANTS, ids=variant_id)
def test_adaptive_scale(variant, param, gradient, phase, extrapolation, triton):
    options = {"extrap_scale": "adaptive", "extrapolation": extrapolation}
    for decay, has_local in itertools.product((0.0, 0.1), (False, True)):
        case = Case(*variant, {**options, "weight_decay": decay}, phase, param, gradient, has_local=has_local)
        assert not (found := difference(case, triton)), found


@pytest.mark.parametrize("param", [torch.float32, torch.float64])
@pytest.mark.parametrize("extrapolation", ["momentum", "past_update"])
@pytest.mark.parametrize("variant", VARIANTS, ids=variant_id)
def test_recovered_base(variant, extrapolation, param, triton):
    """By the inner learning rate of the step before, of 0, too."""
    spec = variant[0]
    for inner_lr, decay, has_local in itertools.product((0.3, 0.0), (0.1, 0.0), (False, True)):
        options = {"extrapolation": extrapolation, "weight_decay": decay}
        case = Case(*variant, options, param=param, has_local=has_local, inner_lr=inner_lr)
        buffered = spec.norm is None and bool(variant[1])
        assert case.layout.recovers_base == (buffered and (spec.name == "sgd" or extrapolation == "momentum"))
        assert not (found := difference(case, triton)), found


@pytest.mark.parametrize("param", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("scale", CODES["noise_scale"])
@pytest.mark.parametrize("variant", VARIANTS, ids=variant_id)
def test_amplitude_of_noise(variant, scale, param, triton):
    for kind, has_local in itertools.product(filter(None, CODES["noise"]), (False, True)):
        options = {"noise": kind, "noise_scale": scale, "extrapolation": "past_gradient"}
        case = Case(*variant, options, param=param, has_local=has_local)
        assert not (found := difference(case, triton)), found


def row(**values):
    return scalars.pack({"key": KEY, "seed": KEY, **values})


def test_philox(triton):
    native = native_writing.words("philox", row())
    for name, writing in (("reference", reference_writing.words(KEY)), ("Triton", triton.words(KEY))):
        assert not (found := comparison.difference(native, writing, name)), found


@pytest.mark.parametrize("kind", [kind for kind in CODES["noise"] if kind])
def test_noise(kind, triton):
    native = native_writing.words("noise", row(noise=CODES["noise"].index(kind)))
    for name, writing in (("reference", reference_writing.noise_of(kind)), ("Triton", triton.noise(kind))):
        assert not (found := comparison.difference(native, writing, name)), found


def test_random_bits(triton):
    native = native_writing.words("bits", row(), count=3)
    for name, writing in (("reference", reference_writing.bits(KEY, 3)), ("Triton", triton.bits(KEY, 3))):
        assert not (found := comparison.difference(native, writing, name)), found


def test_the_base_iterate_in_24_bits(triton):
    native = native_writing.words("rounded", row())
    for name, writing in (("reference", reference_writing.rounded()), ("Triton", triton.rounded())):
        assert not (found := comparison.difference(native, writing, name)), found
    for what, writing in (("split", triton.split()), ("join", triton.joined())):
        assert not (found := comparison.difference(native_writing.words(what, row()), writing, "Triton")), found


def test_stochastic_rounding():
    native = native_writing.words("stochastic", row())
    assert not (found := comparison.difference(native, reference_writing.stochastic(), "reference")), found


# That the comparison can fail, and what it says then.

ADAM = Case(*next(variant for variant in VARIANTS if variant[0].name == "adam"))
NESTEROV = Case(*next(v for v in VARIANTS if v[0].name == "sgd" and v[1]), options={"nesterov": True})
RECOVERED = replace(NESTEROV, options={"extrapolation": "momentum"}, inner_lr=0.3)
PAST = {"extrapolation": "past_gradient"}
DIFFERENCE = ADAM.with_options(extrapolation="gradient_difference").with_local_gradient()
MISTAKES_IN_TRITON = [
    (DIFFERENCE, "kernels.direction", "l - g", "g - l"),
    (DIFFERENCE, "kernels.direction_norm", "extrapolated_gradient(e, g, l)", "l"),
    (ADAM, "rules.adam", "(g * g) * c.second_weight", "g * (g * c.second_weight)"),
    (ADAM, "rules.adam", "* c.second_correction + c.eps", "* (c.second_correction + c.eps)"),
    (ADAM, "rules.adam", "(1.0 - beta2).to(A)", "(1.0 - beta1).to(A)"),
    (ADAM, "kernels.step", "- u * update.lr", "- z * update.lr"),
    (ADAM.with_options(weight_decay=0.0), "kernels.step", "+ 1\n", "+ 2\n"),
    (NESTEROV, "rules.sgd", "g + v * c.momentum", "v + g * c.momentum"),
    (NESTEROV, "kernels.gradients", "g + x * prepare.decay", "g - x * prepare.decay"),
    (NESTEROV.with_options(extrapolation="past_gradient"), "kernels.direction", "tl.where(e.momentum, m, z)", "m"),
    (ADAM.with_options(extrap_scale="adaptive", **PAST), "kernels.direction", "along * x * x", "along * (x * x)"),
    (ADAM.with_options(extrap_scale="adaptive", **PAST), "kernels.direction_norm", "measured(e, along, x)", "along"),
    (RECOVERED, "kernels.base", "y + m * inner_lr", "y - m * inner_lr"),
]


@pytest.mark.parametrize("case, module, old, new", MISTAKES_IN_TRITON)
def test_finds_mistakes_in_triton(case, module, old, new):
    found = difference(case, TritonWriting({module: [(old, new)]}))
    assert found and "\n  Triton" in found


@pytest.mark.parametrize(
    "case, old, new",
    [
        (ADAM, "(g - m) * (1.0 - beta1)", "g * (1.0 - beta1) - m * (1.0 - beta1)"),
        (ADAM, "m.add_(", "m.sub_("),
        (ADAM, ".reciprocal()", ".sqrt()"),
        (NESTEROV, "g * grad_weight", "l"),
        (NESTEROV, "g + v * momentum", "v + g * momentum"),
    ],
)
def test_finds_mistakes_in_the_reference(case, old, new, triton):
    rule = edited(f"extrap_kernels.reference.rules.{case.spec.name}", [(old, new)])
    found = difference(case.with_local_gradient(), triton, rule)
    assert found and "\n  reference" in found


@pytest.mark.parametrize(
    "kind, old, new",
    [
        ("gaussian", "0.053811647", "0.05381165"),
        ("gaussian", "1.6525917e-7", "1.6525918e-7"),
        ("gaussian", "radius * even, radius * odd", "radius * odd, radius * even"),
        ("gaussian", "word & 0x80000000", "word & 0x40000000"),
        ("gaussian", "tl.fma(chord, 1.6525917e-7, t * p)", "chord * 1.6525917e-7 + t * p"),
        ("uniform", "word >> 16)", "word >> 15)"),
    ],
)
def test_finds_mistakes_in_noise(kind, old, new):
    native = native_writing.words("noise", row(noise=CODES["noise"].index(kind)))
    assert comparison.difference(native, TritonWriting({"kernels.distributions": [(old, new)]}).noise(kind), "Triton")


def test_finds_mistakes_in_philox():
    native = native_writing.words("philox", row())
    for old, new in (("0xCD9E8D57", "0xCD9E8D59"), ("0xBB67AE85", "0xBB67AE84"), ("range(10)", "range(9)")):
        assert comparison.difference(native, TritonWriting({"kernels.philox": [(old, new)]}).words(KEY), "Triton")
    wrong = edited("extrap_kernels.reference.philox", [(">> 32) & _MASK32) ^ c[3]", ">> 31) & _MASK32) ^ c[3]")])
    assert comparison.difference(native, reference_writing.words(KEY, wrong), "reference")


def test_finds_mistakes_in_random_bits():
    native = native_writing.words("bits", row(), count=3)
    for old, new in (
        ("0x846CA68B", "0x846CA689"),
        ("h >> 15", "h >> 16"),
        ("^ second", ""),
        ("position >> 32", "position"),
    ):
        wrong = TritonWriting({"kernels.random_bits": [(old, new)]}).bits(KEY, 3)
        assert comparison.difference(native, wrong, "Triton")


def test_shows_the_first_difference():
    triton = TritonWriting({"rules.adam": [("second_moment(c, g, buffers[1])", "second_moment(c, l, buffers[1])")]})
    case = ADAM.with_options(weight_decay=0.0).with_local_gradient()
    assert comparison.difference(native_writing.step(case), triton.step(case), "Triton").splitlines() == [
        "op 6:",
        "  C++    mul(gradient, gradient)",
        "  Triton mul(local, local)",
    ]


def test_only_exact_identities_hold():
    def number(expression):
        return canonical.expression(expression.node)

    canonical = Canonical("float32")
    a, b, c = (Recorded.input(name, torch.float32) for name in "abc")
    assert number(a + b * 1.0) == number(b + a)
    assert number(a - b) == number(a + -b)
    assert number(-a * b) == number(-(b * a))
    assert number((-a).__neg__()) == number(a)
    assert number(a / -b) == number(-(a / b))
    assert number((a + b) + c) != number(a + (b + c))
    assert number((a * b) * c) != number(a * (b * c))
    assert number(a * 2.0 + b * 2.0) != number((a + b) * 2.0)
    assert number(-(a + b)) != number(-a + -b)  # 1 - 1 and -1 + 1 are +0
    assert number(a + 0.0) != number(a)  # -0
    assert number(a * 0.0) != number(a * -0.0)
    assert number(a / b) != number(a * (1.0 / b))
    assert number((a.double() * b.double()).to(torch.float32)) != number(a * b)
