"""max_grad_norm: torch.nn.utils.clip_grad_norm_ inside the step."""

import helpers
import oracle
import pytest
import torch

from extrap_kernels import ExtrapSGD

NAMES = ("scalar", "empty", "matrix", "channels_last", "transposed", "columns", "blocks")
GRADIENT = {"extrapolation": "past_gradient"}


def make(backend, dtype=torch.float32, rule="sgd", variant="decay", **options):
    """Three groups: clipped, clipped at another norm in half precision, and not clipped."""
    groups = [
        {"params": helpers.zoo(backend, dtype, NAMES)},
        {"params": helpers.zoo(backend, torch.bfloat16, NAMES, seed=1), "max_grad_norm": 20.0},
        {"params": helpers.zoo(backend, dtype, NAMES, seed=2), "max_grad_norm": None},
    ]
    rule = helpers.RULES[rule]
    return rule.optimizer(
        groups, **{"lr": 0.1, "max_grad_norm": 5.0, "backend": backend, **rule.variants[variant], **options}
    )


def feed(optimizer, seed, factor=1.0):
    """Gradients, and local ones for every other parameter."""
    params = helpers.parameters_of(optimizer)
    helpers.set_gradients(params, seed)
    for k, p in enumerate(params):
        p.grad *= factor
        if k % 2:
            optimizer.local_gradients[p] = helpers.random_like(p, seed + 500 + k) * factor
    if seed % 100 < 2:
        params[3].grad = None
    return [p.grad.cpu() for p in params if p.grad is not None]


def coefficient(norm, max_norm):
    return None if max_norm is None else min(1.0, max_norm / (norm + 1e-6))


@pytest.mark.parametrize("perturbation", [GRADIENT, helpers.EXTRAGRADIENT], ids=helpers.describe)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64], ids=helpers.describe)
@pytest.mark.parametrize("rule", helpers.RULES)
def test_groups_are_clipped_by_the_norm_of_all(backend, rule, dtype, perturbation):
    """Gradients and local ones by the same factor, once unscaled; in the fourth step, by none."""
    optimizer = make(backend, dtype, rule, **perturbation)
    optimizer.grad_scale = 3.0
    params = helpers.parameters_of(optimizer)
    grouped = [(group, p) for group in optimizer.param_groups for p in group["params"]]
    oracles = [helpers.RULES[rule].oracle(p, index) for index, p in enumerate(params)]

    def expect(half, gradients):
        norm = oracle.gradient_norm(gradients, scale=3.0)
        for (group, p), expected in zip(grouped, oracles):
            expected.clip = coefficient(norm, group["max_grad_norm"])
            if p.grad is not None:
                half(expected)(group, p.grad, optimizer.local_gradients.get(p), scale=3.0)
        return norm

    for t in range(5):
        factor = 1e-3 if t == 3 else 1.0
        if perturbation is helpers.EXTRAGRADIENT:
            expect(lambda expected: expected.extrapolate, feed(optimizer, t + 100, factor))
            optimizer.extrapolate(grad_scale=3.0)
            oracle.assert_matches(optimizer, oracles)
        norm = expect(lambda expected: expected.step, feed(optimizer, t, factor))
        assert (norm < 5.0) == (t == 3)
        optimizer.step()
        oracle.assert_matches(optimizer, oracles)
        assert float(optimizer.grad_norm) == pytest.approx(norm, rel=1e-12)


def twins(backend, dtype):
    """A clipping optimizer, and torch's on copies of the parameters."""
    params = helpers.zoo(backend, dtype)
    copies = [torch.nn.Parameter(p.detach().clone()) for p in params]
    ours = ExtrapSGD(params, 0.1, 0.9, max_grad_norm=2.0, extrapolation=None, backend=backend)
    return ours, torch.optim.SGD(copies, 0.1, 0.9, foreach=False), params, copies


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=helpers.describe)
@pytest.mark.parametrize("spoil", [0.0, torch.inf, -torch.inf, torch.nan])
def test_equals_clip_grad_norm_of_torch(backend, dtype, spoil):
    """Also where the norm is infinite or not a number."""
    ours, theirs, params, copies = twins(backend, dtype)
    for t in range(4):
        helpers.set_gradients(params, seed=t)
        if t == 2 and spoil:
            params[-1].grad[0, 0] = spoil
        for p, q in zip(params, copies):
            q.grad = p.grad.clone()
        norm = torch.nn.utils.clip_grad_norm_(copies, 2.0)
        ours.step()
        theirs.step()
        assert float(ours.grad_norm) == pytest.approx(float(norm), rel=1e-6, nan_ok=True)
        torch.testing.assert_close(params, copies, rtol=1e-6, atol=1e-6, equal_nan=True)
    assert any(p.isnan().any() for p in params) == bool(spoil)


def test_with_grad_scaler_equals_unscaling_and_clipping_by_hand(backend):
    """The norm of a skipped step, the first one for example, is infinite on every backend."""
    ours, theirs, params, copies = twins(backend, torch.float32)
    scalers = [torch.amp.GradScaler(helpers.DEVICES[backend], init_scale=2.0**8) for _ in range(2)]
    norms = []
    for t in range(4):
        helpers.set_gradients(params, seed=t)
        loss = torch.inf if t in (0, 2) else 1.0
        for p, q in zip(params, copies):
            p.grad *= scalers[0].scale(torch.tensor(loss, device=p.device))
            q.grad = p.grad.clone()
        scalers[1].scale(torch.ones((), device=params[0].device))
        scalers[1].unscale_(theirs)
        torch.nn.utils.clip_grad_norm_(copies, 2.0)
        for optimizer, scaler in zip((ours, theirs), scalers):
            scaler.step(optimizer)
            scaler.update()
        norms.append(float(ours.grad_norm))
        torch.testing.assert_close(params, copies, rtol=1e-6, atol=1e-6)
    assert norms[0] == norms[2] == torch.inf
    assert norms[1] != norms[3] < torch.inf


def test_nothing_to_clip_changes_no_bit(backend):
    clipping, plain = make(backend, max_grad_norm=1e6), make(backend)
    clipping.param_groups[1]["max_grad_norm"] = 1e6
    for group in plain.param_groups:
        group["max_grad_norm"] = None
    for t in range(3):
        gradients = feed(clipping, t)
        feed(plain, t)
        clipping.step()
        plain.step()
        assert float(clipping.grad_norm) == pytest.approx(oracle.gradient_norm(gradients), rel=1e-12)
    helpers.assert_same_bits(helpers.snapshot(clipping), helpers.snapshot(plain))
    assert plain.grad_norm is None


def test_no_norm_without_clipping(backend):
    """Not even that of the last step that clipped."""
    optimizer = make(backend)
    feed(optimizer, seed=0)
    optimizer.step()
    assert optimizer.grad_norm is not None
    for group in optimizer.param_groups:
        group["max_grad_norm"] = None
    feed(optimizer, seed=1)
    optimizer.step()
    assert optimizer.grad_norm is None


def test_no_gradients_have_norm_zero(backend):
    optimizer = make(backend)
    optimizer.step()
    assert optimizer.grad_norm == 0.0


def test_norm_is_that_of_the_groups_that_step(backend):
    """The first half of an extragradient step leaves out the groups that take one gradient, and gradients now gone."""
    optimizer = make(backend, variant="plain")
    optimizer.param_groups[2].update(helpers.EXTRAGRADIENT, max_grad_norm=3.0)
    params = optimizer.param_groups[2]["params"]
    for t in range(2):
        before = [p.detach().clone() for p in params]
        optimizer.zero_grad()
        helpers.set_gradients(params, seed=t)
        norm = oracle.gradient_norm([p.grad for p in params])
        optimizer.extrapolate()
        assert float(optimizer.grad_norm) == pytest.approx(norm, rel=1e-12)
        expected = [x - 0.1 * coefficient(norm, 3.0) * p.grad for p, x in zip(params, before)]
        torch.testing.assert_close([p.detach() for p in params], expected, rtol=1e-6, atol=1e-6)
        norm = oracle.gradient_norm(feed(optimizer, seed=t + 50))
        optimizer.step()
        assert float(optimizer.grad_norm) == pytest.approx(norm, rel=1e-12)


@pytest.mark.parametrize(
    "relaid",
    [
        lambda g: g[:1, :1].expand_as(g),
        lambda g: g.t().contiguous().t(),
        lambda g: g.conj(),
        lambda g: g.repeat(2, 2)[::2, ::2],
    ],
    ids=["expanded", "transposed", "conjugated", "with_gaps"],
)
def test_norm_of_gradients_of_any_layout(backend, relaid):
    (param,) = helpers.zoo(backend, torch.complex64, ["matrix"])
    optimizer = ExtrapSGD([param], max_grad_norm=1.0, backend=backend)
    for seed in range(2):
        param.grad = relaid(helpers.random_like(param, seed))
        optimizer.step()
        assert float(optimizer.grad_norm) == pytest.approx(oracle.gradient_norm([param.grad]), rel=1e-12)


@pytest.mark.parametrize("backend", helpers.FAST_BACKENDS)
def test_number_of_threads_changes_no_bit(backend, threads):
    results = []
    for count in (1, 2, 5):
        threads(count)
        param = torch.nn.Parameter(torch.linspace(-1, 1, 300_001, device=helpers.DEVICES[backend]))
        optimizer = ExtrapSGD([param, *helpers.zoo(backend)], max_grad_norm=1.0, backend=backend)
        helpers.train(optimizer, steps=2)
        results.append((optimizer.grad_norm, helpers.snapshot(optimizer)))
    helpers.assert_same_bits(results[1], results[0])
    helpers.assert_same_bits(results[2], results[0])


@pytest.mark.parametrize("value", [0.0, -1.0, torch.nan])
def test_bad_norms_are_refused(value):
    with pytest.raises(ValueError, match=f"Invalid max_grad_norm value: {value}"):
        make("reference", max_grad_norm=value)
