"""The methods of docs/methods.md: trajectories in float64 as their papers write them, on a small network."""

import math

import helpers
import pytest
import torch

from extrap_kernels import ExtrapAdamW, ExtrapSGD

SHAPES = ((8, 5), (8,), (3, 8))
STEPS = 6
RHO, LR, MU = 0.2, 0.1, 0.9
GLOBAL = {"extrap_norm": "global"}
SAM = {"extrapolation": "extragradient", "extrap_lr": -RHO, **GLOBAL}
ADAPTIVE = {"extrap_scale": "adaptive"}


def start(dtype=torch.float64, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype) / 2 for shape in SHAPES]


def loss_of(weights, t, worker=0):
    first, bias, last = weights
    generator = torch.Generator().manual_seed(100 * worker + t)
    inputs = torch.randn(7, 5, generator=generator, dtype=torch.float64).to(first.device, first.dtype)
    labels = torch.randint(3, (7,), generator=generator).to(first.device)
    hidden = torch.nn.functional.linear(inputs, first, bias).tanh()
    return torch.nn.functional.cross_entropy(torch.nn.functional.linear(hidden, last), labels)


def gradient(weights, t, worker=0):
    leaves = [w.detach().clone().requires_grad_() for w in weights]
    return list(torch.autograd.grad(loss_of(leaves, t, worker), leaves))


def norm(vectors):
    return math.sqrt(sum(float(v.detach().double().square().sum()) for v in vectors))


def moved(weights, distance, along):
    return [w + distance * d for w, d in zip(weights, along)]


def assert_close(actual, expected, tolerance=1e-12):
    for a, e in zip(actual, expected):
        torch.testing.assert_close(a.detach().double(), e.double(), rtol=tolerance, atol=tolerance)


def evaluation(optimizer, params, t):
    def closure():
        optimizer.zero_grad()
        loss = loss_of(params, t)
        loss.backward()
        return loss

    return closure


def run(backend, optimizer_type=ExtrapSGD, before_step=None, **options):
    """Our trajectory: the parameters and their optimizer."""
    params = [torch.nn.Parameter(w) for w in start(device=helpers.DEVICES[backend])]
    optimizer = optimizer_type(params, lr=LR, backend=backend, **options)
    for t in range(STEPS):
        if before_step is not None:
            before_step(optimizer, t)
        optimizer.step(evaluation(optimizer, params, t))
    return params, optimizer, [optimizer.base_of(p).detach() for p in params]


def weights_of(backend):
    return start(device=helpers.DEVICES[backend])


def test_msam(backend):
    """Becker et al. 2024, algorithm 1, but for the norm, which is that of the momentum before the step."""
    _, _, found = run(backend, momentum=MU, extrapolation="momentum", extrap_lr=RHO, **GLOBAL)
    w = weights_of(backend)
    v, radius = [torch.zeros_like(each) for each in w], 0.0
    for t in range(STEPS):
        g = gradient(moved(w, -radius, v), t)
        before = norm(v)
        v = [MU * a + b for a, b in zip(v, g)]
        w = moved(w, -LR, v)
        radius = RHO / before if before else 0.0
    assert_close(found, w)


def test_adaptive_msam(backend):
    """MSAM with ASAM's scale, and norm, of the weights: of those where the perturbation begins."""
    options = {"extrapolation": "momentum", "extrap_lr": RHO, **GLOBAL, **ADAPTIVE}
    _, _, found = run(backend, momentum=MU, **options)
    w = weights_of(backend)
    v, radius = [torch.zeros_like(each) for each in w], 0.0
    for t in range(STEPS):
        g = gradient(moved(w, -radius, [a * a * b for a, b in zip(w, v)]), t)
        before = norm([a * b for a, b in zip(w, v)])
        v = [MU * a + b for a, b in zip(v, g)]
        w = moved(w, -LR, v)
        radius = RHO / before if before else 0.0
    assert_close(found, w)


def test_adamw_msam_with_a_warm_up(backend):
    """Along the first moment without bias correction, and off for the first steps."""
    decay, eps, warm_up = 0.1, 1e-8, 2

    def schedule(optimizer, t):
        # What a step of the warm-up leaves is where the next gradient is taken.
        optimizer.param_groups[0]["extrap_lr"] = RHO if t >= warm_up else 0.0

    options = {"weight_decay": decay, "betas": (0.9, 0.99), "eps": eps, "extrapolation": "momentum"}
    _, _, found = run(backend, ExtrapAdamW, schedule, **options, **GLOBAL)
    w = weights_of(backend)
    m, v = [torch.zeros_like(each) for each in w], [torch.zeros_like(each) for each in w]
    radius = 0.0
    for t in range(STEPS):
        g, before = gradient(moved(w, -radius, m), t), norm(m)
        m = [0.9 * a + 0.1 * b for a, b in zip(m, g)]
        v = [0.99 * a + 0.01 * b * b for a, b in zip(v, g)]
        for k in range(len(w)):
            m_hat, v_hat = m[k] / (1 - 0.9 ** (t + 1)), v[k] / (1 - 0.99 ** (t + 1))
            w[k] = w[k] - LR * (m_hat / (v_hat.sqrt() + eps) + decay * w[k])
        radius = RHO / before if t >= warm_up else 0.0
    assert_close(found, w, 1e-10)


def sam_by_hand(w, take, steps=STEPS):
    """Foret et al. 2021, algorithm 1, over SGD with momentum; ``take(w, t, half)``: a gradient, None to skip."""
    v = None
    for t in range(steps):
        g = take(w, t, 0)
        g = take(moved(w, RHO / norm(g), g), t, 1)
        if g is not None:
            v = g if v is None else [MU * a + b for a, b in zip(v, g)]
            w = moved(w, -LR, v)
    return w


def test_sam(backend):
    _, _, found = run(backend, momentum=MU, **SAM)
    assert_close(found, sam_by_hand(weights_of(backend), lambda w, t, half: gradient(w, t)))


def test_asam(backend):
    """Kwon et al. 2021, algorithm 1: scaled by the weights; a bias, whose scale is 1, in a group of its own."""
    params = [torch.nn.Parameter(w) for w in weights_of(backend)]
    first, bias, last = params
    groups = [{"params": [first, last], **ADAPTIVE}, {"params": [bias]}]
    optimizer = ExtrapSGD(groups, lr=LR, momentum=MU, backend=backend, **SAM)
    w, v = weights_of(backend), [torch.zeros_like(p) for p in params]
    for t in range(STEPS):
        optimizer.step(evaluation(optimizer, params, t))
        scale = [w[0].abs(), torch.ones_like(w[1]), w[2].abs()]
        scaled = [s * g for s, g in zip(scale, gradient(w, t))]
        ascent = [s * g for s, g in zip(scale, scaled)]
        g = gradient(moved(w, RHO / norm(scaled), ascent), t)
        v = [MU * a + b for a, b in zip(v, g)]
        w = moved(w, -LR, v)
        assert_close(params, w)


def test_sam_of_each_workers_own_gradient(backend):
    """m-SAM: workers share the weights, and each ascends along its own gradient by its norm."""
    workers = [[torch.nn.Parameter(w) for w in weights_of(backend)] for _ in range(2)]
    optimizers = [ExtrapSGD(params, lr=LR, momentum=MU, backend=backend, **SAM) for params in workers]

    def backward(t):
        own = [gradient(params, t, worker) for worker, params in enumerate(workers)]
        for params, optimizer, local in zip(workers, optimizers, own):
            for p, a, b, l in zip(params, *own, local):
                p.grad, optimizer.local_gradients[p] = (a + b) / 2, l

    w, v = weights_of(backend), [torch.zeros_like(p) for p in workers[0]]
    for t in range(STEPS):
        for half in ("extrapolate", "step"):
            backward(t)
            for optimizer in optimizers:
                getattr(optimizer, half)()
        own = [gradient(w, t, worker) for worker in range(2)]
        ascended = [gradient(moved(w, RHO / norm(g), g), t, worker) for worker, g in enumerate(own)]
        v = [MU * c + (a + b) / 2 for a, b, c in zip(*ascended, v)]
        w = moved(w, -LR, v)
        assert_close(workers[0], w)
        helpers.assert_same_bits([p.detach() for p in workers[1]], [p.detach() for p in workers[0]])


def test_sam_under_a_grad_scaler(backend):
    """One step overflows in its second backward: both runs skip it, and ours goes back to the base iterate."""
    device, skipped = helpers.DEVICES[backend], 2
    params = [torch.nn.Parameter(w) for w in start(torch.float32, device)]
    optimizer = ExtrapSGD(params, lr=LR, momentum=MU, backend=backend, **SAM)
    scaler = torch.amp.GradScaler(device, init_scale=2.0**10)
    for t in range(STEPS):
        for half in range(2):
            optimizer.zero_grad()
            loss = loss_of(params, t) * (math.inf if (t, half) == (skipped, 1) else 1.0)
            scaler.scale(loss).backward()
            if half == 0:
                optimizer.extrapolate(scaler.get_scale())
                assert norm(moved(params, -1, [optimizer.base_of(p) for p in params])) == pytest.approx(RHO, rel=1e-4)
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() == 2.0**9
    w = start(torch.float32, device)
    assert_close(params, sam_by_hand(w, lambda w, t, h: None if (t, h) == (skipped, 1) else gradient(w, t)), 1e-5)


def test_sam_under_autocast(backend):
    device = helpers.DEVICES[backend]
    params = [torch.nn.Parameter(w) for w in start(torch.float32, device)]
    optimizer = ExtrapSGD(params, lr=LR, momentum=MU, backend=backend, **SAM)

    def closure(t):
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            loss = loss_of(params, t)
        loss.backward()
        return loss

    def take(w, t, half):
        with torch.autocast(device, torch.bfloat16):
            return gradient(w, t)

    for t in range(3):
        optimizer.step(lambda t=t: closure(t))
    # A weight in bfloat16 that is rounded otherwise changes its gradient by a hundredth at most.
    assert_close(params, sam_by_hand(start(torch.float32, device), take, steps=3), 2e-3)


def test_overshoot_ramped(backend):
    """Kopal et al. 2025: gradients ahead along the momentum update, by a factor that grows to 5."""

    def factor(t):
        return 5.0 * min(1.0, t / 4)

    def schedule(optimizer, t):
        optimizer.param_groups[0]["extrap_ratio"] = factor(t)

    _, _, found = run(backend, before_step=schedule, momentum=MU, extrapolation="past_update")
    w = weights_of(backend)
    v, ahead = [torch.zeros_like(each) for each in w], 0.0
    for t in range(STEPS):
        g = gradient(moved(w, -LR * ahead, v), t)
        v = [MU * a + b for a, b in zip(v, g)]
        w, ahead = moved(w, -LR, v), factor(t)
    assert_close(found, w)


def test_implicit_gradient_transport(backend):
    """Arnold et al. 2019, Cutkosky and Mehta 2020: at x_t + mu / (1 - mu) * (x_t - x_(t-1)), into a moving average."""
    options = {"momentum": MU, "dampening": MU, "extrapolation": "past_update", "extrap_ratio": MU / (1 - MU)}
    _, _, found = run(backend, **options)
    w = weights_of(backend)
    last, m = w, None
    for t in range(STEPS):
        g = gradient(moved(w, MU / (1 - MU), moved(w, -1.0, last)), t)
        m = g if m is None else [MU * a + (1 - MU) * b for a, b in zip(m, g)]
        last, w = w, moved(w, -LR, m)
    assert_close(found, w)


def test_optimistic_gradient(backend):
    """Daskalakis et al. 2018: w -= 2 lr g_t - lr g_(t-1), of which the parameters are the iterates."""
    params, _, _ = run(backend, extrapolation="past_gradient")
    w = weights_of(backend)
    last = [torch.zeros_like(each) for each in w]
    for t in range(STEPS):
        g = gradient(w, t)
        w, last = moved(moved(w, -2 * LR, g), LR, last), g
    assert_close(params, w)


def test_gradient_difference_of_two_workers(backend):
    """Haruki et al. 2019: what workers are moved by adds up to nothing, and is nothing for a single one."""
    distance = 0.4
    workers = [[torch.nn.Parameter(w) for w in weights_of(backend)] for _ in range(2)]
    options = {"extrapolation": "gradient_difference", "extrap_lr": distance, "backend": backend}
    optimizers = [ExtrapSGD(params, lr=LR, momentum=MU, **options) for params in workers]
    w, v = weights_of(backend), [torch.zeros_like(p) for p in workers[0]]
    points = [w, w]
    for t in range(STEPS):
        own = [gradient(params, t, worker) for worker, params in enumerate(workers)]
        for params, optimizer, local in zip(workers, optimizers, own):
            for p, a, b, l in zip(params, *own, local):
                p.grad, optimizer.local_gradients[p] = (a + b) / 2, l
            optimizer.step()
        own = [gradient(point, t, worker) for worker, point in enumerate(points)]
        mean = [(a + b) / 2 for a, b in zip(*own)]
        v = [MU * a + b for a, b in zip(v, mean)]
        w = moved(w, -LR, v)
        points = [moved(w, -distance, moved(local, -1.0, mean)) for local in own]
        for params, point in zip(workers, points):
            assert_close(params, point)
    params, _, found = run(backend, momentum=MU, extrapolation="gradient_difference", extrap_lr=distance)
    helpers.assert_same_bits([p.detach() for p in params], found)


def test_anti_pgd(backend):
    """Orvieto et al. 2022: each step takes back the noise of the one before; the parameters are the iterates."""
    noises = []

    def note(optimizer, t):
        params = helpers.parameters_of(optimizer)
        noises.append([(p - optimizer.base_of(p)).detach().clone() for p in params])

    options = {"extrapolation": None, "noise": "gaussian", "noise_std": 0.05}
    params, optimizer, _ = run(backend, before_step=note, **options)
    note(optimizer, STEPS)
    w = weights_of(backend)
    for t in range(STEPS):
        w = moved(moved(moved(w, -LR, gradient(w, t)), 1.0, noises[t + 1]), -1.0, noises[t])
    assert_close(params, w)
    assert norm(noises[1]) > 0.05
