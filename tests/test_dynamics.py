"""Whole trajectories on linear problems, where each method has a closed form."""

import helpers
import pytest
import torch

from extrap_kernels import ExtrapSGD

LR, INNER, MOMENTUM, STEPS = 0.11, 0.17, 0.7, 30
A = torch.diag(torch.tensor([0.1, 0.5, 1.0, 2.0], dtype=torch.float64)) + 0.2


def iteration_matrix(extrapolation, nesterov):
    """The matrix that takes (x, y, v) to the next (x, y, v), for the gradient A y."""
    I, O = torch.eye(len(A), dtype=torch.float64), torch.zeros_like(A)
    v = [O, A, MOMENTUM * I]
    u = [MOMENTUM * b + (A if k == 1 and nesterov else O) for k, b in enumerate(v)] if nesterov else v
    z = {"past_gradient": [O, A, O], "past_update": u, None: [O, O, O]}[extrapolation]
    x = [e - LR * b for e, b in zip((I, O, O), u)]
    y = [a - INNER * b for a, b in zip(x, z)]
    return torch.cat([torch.cat(row, dim=1) for row in (x, y, v)])


def quadratic(backend, **options):
    x = torch.linspace(-1, 2, len(A), dtype=torch.float64)
    param = torch.nn.Parameter(x.clone().to(helpers.DEVICES[backend]))
    return x, param, ExtrapSGD([param], lr=LR, extrap_lr=INNER, backend=backend, **options)


def backward(param):
    param.grad = None
    (0.5 * param @ (A.to(param.device) @ param)).backward()


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("extrapolation", helpers.DIRECTIONS, ids=str)
def test_quadratic_follows_its_iteration_matrix(backend, extrapolation, nesterov):
    x, param, optimizer = quadratic(backend, extrapolation=extrapolation, momentum=MOMENTUM, nesterov=nesterov)
    for _ in range(STEPS):
        backward(param)
        optimizer.step()
    power = torch.linalg.matrix_power(iteration_matrix(extrapolation, nesterov), STEPS)
    expected = power @ torch.cat([x, x, torch.zeros_like(x)])
    state = optimizer.state[param]
    actual = torch.cat([optimizer.base_of(param), param.detach(), state["momentum_buffer"]]).cpu()
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_quadratic_under_extragradient(backend):
    x, param, optimizer = quadratic(backend, extrapolation="extragradient")

    def closure():
        backward(param)

    for _ in range(STEPS):
        optimizer.step(closure)
    I = torch.eye(len(A), dtype=torch.float64)
    expected = torch.linalg.matrix_power(I - LR * A @ (I - INNER * A), STEPS) @ x
    torch.testing.assert_close(param.detach().cpu(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "extrapolation, converges", [("extragradient", True), ("past_gradient", True), (None, False)], ids=str
)
def test_saddle_point(backend, extrapolation, converges):
    """min over a, max over b of a*b: plain gradient steps spiral outwards, extrapolation brings them in."""
    one = torch.ones((), dtype=torch.float64, device=helpers.DEVICES[backend])
    a, b = (torch.nn.Parameter(one.clone()) for _ in range(2))
    optimizer = ExtrapSGD(
        [{"params": [a]}, {"params": [b], "maximize": True}], lr=0.3, extrapolation=extrapolation, backend=backend
    )

    def closure():
        optimizer.zero_grad()
        (a * b).backward()

    for _ in range(200):
        optimizer.step(closure)
    distance = torch.hypot(a, b).item()
    assert distance < 1e-3 if converges else distance > 1e3
