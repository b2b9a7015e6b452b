"""The statements of docs/theory.md against trainings with the package's optimizers, in float64."""

import math

import pytest
import torch

from extrap_kernels import ExtrapSGD

SIZE, WORKERS, STEPS = 50, 4, 400
SMOOTHNESS = 1.0  # of 1 - cos, which is not convex, is never below 0 and has the gradient sin


def losses(x):
    return (1 - x.cos()).sum()


def perturbed_training(lr, extrap_ratio, noise_std, sigma, seed):
    """Train `WORKERS` workers; return the mean squared norms of the gradient at x and of y - x."""
    generator = torch.Generator().manual_seed(seed)
    start = 3 * torch.rand(SIZE, dtype=torch.float64, generator=generator)
    params = [torch.nn.Parameter(start.clone()) for _ in range(WORKERS)]
    options = {"noise": "gaussian", "noise_std": noise_std} if noise_std else {}
    optimizers = [ExtrapSGD([p], lr=lr, extrap_ratio=extrap_ratio, seed=seed, **options) for p in params]
    for rank, optimizer in enumerate(optimizers):
        optimizer.rank = rank
    gradients = distances = 0.0
    for _ in range(STEPS):
        x = optimizers[0].base_of(params[0]).detach().clone()
        gradients += float(x.sin().square().sum())
        distances += sum(float((p.detach() - x).square().sum()) for p in params) / WORKERS
        own = [
            p.detach().sin() + sigma / math.sqrt(SIZE) * torch.randn(SIZE, dtype=torch.float64, generator=generator)
            for p in params
        ]
        mean = sum(own) / WORKERS
        for p, optimizer, gradient in zip(params, optimizers, own):
            p.grad, optimizer.local_gradients[p] = mean.clone(), gradient
            optimizer.step()
    return gradients / STEPS, distances / STEPS, float(losses(start))


@pytest.mark.parametrize("noise_std", [0.0, 0.02])
@pytest.mark.parametrize("lr, extrap_ratio", [(0.05, 1.0), (0.05, -2.0), (0.3, 1.0), (0.02, 10.0), (1.0, 1 / 3)])
def test_bounds_of_perturbed_sgd(lr, extrap_ratio, noise_std):
    sigma, gamma, runs = 2.0, abs(lr * extrap_ratio), 4
    assert gamma <= 1 / (3 * SMOOTHNESS) + 1e-9
    found = [perturbed_training(lr, extrap_ratio, noise_std, sigma, seed) for seed in range(runs)]
    gradients, distances, first = (sum(column) / runs for column in zip(*found))
    of_sgd = 2 * first / (lr * STEPS) + SMOOTHNESS * lr * sigma**2 / WORKERS
    assert gradients <= of_sgd + SMOOTHNESS**2 * distances
    of_inner = 4 * SMOOTHNESS**2 * (gamma**2 * sigma**2 + SIZE * noise_std**2)
    assert gradients <= 2 * of_sgd + of_inner
    assert distances > 0


def test_a_large_inner_step_does_harm():
    """The bound's last term is there for a reason."""
    small, large = (perturbed_training(0.05, ratio, 0.0, 2.0, 0)[0] for ratio in (1.0, 30.0))
    assert large > 2 * small


def test_noise_takes_steps_on_the_smoothed_loss():
    """Of |x|, whose smoothed gradient is erf(x / (sqrt(2) std)): the mean over many numbers with noise of their own."""
    at, std, count = 0.03, 0.05, 400_000
    param = torch.nn.Parameter(torch.full((count,), at, dtype=torch.float64))
    optimizer = ExtrapSGD([param], lr=1e-9, extrapolation=None, noise="gaussian", noise_std=std)
    param.grad = torch.zeros_like(param)
    optimizer.step()
    mean = float(param.detach().sign().mean())
    expected = math.erf(at / (math.sqrt(2) * std))
    assert abs(mean - expected) < 5 * math.sqrt((1 - expected**2) / count)


def test_smoothness_of_the_smoothed_loss():
    """For |x|, at 0, the constant is reached."""
    std, step = 0.3, 1e-5
    slope = (math.erf(step / (math.sqrt(2) * std)) - math.erf(-step / (math.sqrt(2) * std))) / (2 * step)
    assert slope == pytest.approx(math.sqrt(2 / math.pi) / std, rel=1e-6)


def last_distance(extrapolation, ratio, h, steps=4000, field=None):
    """The norm of x after training from norm 1 on a linear field, by default that of a quadratic of curvature 1."""
    field = torch.eye(2, dtype=torch.float64) if field is None else field
    param = torch.nn.Parameter(torch.tensor([0.8, 0.6], dtype=torch.float64))
    optimizer = ExtrapSGD([param], lr=h, extrapolation=extrapolation, extrap_ratio=ratio)
    for _ in range(steps):
        if extrapolation == "extragradient":
            param.grad = field @ param.detach()
            optimizer.extrapolate()
        param.grad = field @ param.detach()
        optimizer.step()
        found = float(optimizer.base_of(param).detach().norm())
        if found > 1e6:
            break
    return found


def extragradient_regions(r):
    if r > 1 / 8:
        return [(0.0, 1 / r)]
    root = math.sqrt(1 - 8 * r)
    return [(0.0, (1 - root) / (2 * r)), ((1 + root) / (2 * r), 1 / r)]


REGIONS = [(None, 0.0, [(0.0, 2.0)])]
REGIONS += [("past_gradient", r, [(0.0, 2 / (1 + 2 * r))]) for r in (-0.25, -0.1, 0.25, 1.0, 3.0)]
REGIONS += [("extragradient", r, extragradient_regions(r)) for r in (0.1, 0.25, 1.0, 3.0)]


@pytest.mark.parametrize("extrapolation, ratio, regions", REGIONS)
def test_region_of_stable_learning_rates(extrapolation, ratio, regions):
    for low, high in regions:
        for h in (1.01 * low or 0.01, 0.99 * high):
            assert last_distance(extrapolation, ratio, h) < 1e-3, h
        for h in (0.99 * low, 1.01 * high):
            assert h == 0 or last_distance(extrapolation, ratio, h) > 1e3, h


@pytest.mark.parametrize("h, stable", [(0.1, True), (0.98, True), (1.02, False)])
def test_extragradient_in_a_game(h, stable):
    rotation = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    found = last_distance("extragradient", 1.0, h, field=rotation)
    assert found < 1e-3 if stable else found > 1e3
    assert last_distance(None, 1.0, h, field=rotation) > 1e2
