"""Without extrapolation and noise every optimizer is torch's own, in its for-loop form."""

import inspect

import helpers
import numpy as np
import oracle
import pytest
import torch
from torch.optim import lr_scheduler

OFF = {"extrapolation": None, "noise": None}
FOR_LOOP = {"foreach": False, "fused": False}
CASES = [
    case
    for case in helpers.RULE_CASES
    if case.values[0].torch_optimizer and not case.values[1].get("decoupled_weight_decay")
]


def compare(backend, rule, options, dtype, change=lambda group, t: None, steps=10):
    """Steps of both on the same gradients; torch's on a copy in the precision of the base iterate."""
    params = helpers.zoo(backend, dtype)
    masters = [torch.nn.Parameter(p.detach().clone().to(torch.promote_types(dtype, torch.float32))) for p in params]
    half = len(params) // 2
    optimizers = [
        make([{"params": ps[:half]}, {"params": ps[half:], "lr": 0.02}], lr=0.1, **options, **own)
        for make, ps, own in (
            (rule.optimizer, params, {**OFF, "backend": backend}),
            (rule.torch_optimizer, masters, FOR_LOOP),
        )
    ]
    # The oracle only says how far the roundings of the two may lead apart.
    oracles = [rule.oracle(p, index) for index, p in enumerate(params)]
    for t in range(steps):
        helpers.set_gradients(params, seed=t)
        for optimizer in optimizers:
            change(optimizer.param_groups[1], t)
        for p, master, expected in zip(params, masters, oracles):
            master.grad = p.grad.to(master.dtype)
            expected.step(optimizers[0].param_groups[expected.index >= half], p.grad)
        for optimizer in optimizers:
            optimizer.step()
    for p, master, expected in zip(params, masters, oracles):
        base = optimizers[0].base_of(p)
        error = np.abs(oracle.values(base) - oracle.values(master))
        as_near_as_rounding = (error <= 4 * expected.x.bound).all()
        assert as_near_as_rounding, f"parameter {expected.index}: off by up to {error.max()}"
        assert torch.equal(p.detach(), base.to(dtype))


@pytest.mark.parametrize("dtype", helpers.DTYPES, ids=helpers.describe)
@pytest.mark.parametrize("rule, options", CASES)
def test_equals_torch(backend, rule, options, dtype):
    compare(backend, rule, options, dtype)


@pytest.mark.parametrize("rule, options", CASES)
def test_equals_torch_with_tensor_lr(backend, rule, options):
    def change(group, t):
        if t == 0:
            group["lr"] = torch.tensor(0.05)
        group["lr"].mul_(0.9)

    compare(backend, rule, options, torch.float32, change)


def test_equals_torch_when_momentum_goes_on_and_off(backend):
    """Without dampening, which here starts with the parameter's second step and in torch with the buffer's."""

    def change(group, t):
        group["momentum"] = 0.9 if t in (3, 4, 5, 8, 9) else 0.0

    compare(backend, helpers.RULES["sgd"], {}, torch.float32, change)


@pytest.mark.parametrize("rule", [rule for rule in helpers.RULES.values() if rule.torch_optimizer])
def test_constructor_follows_torch(rule):
    theirs = inspect.signature(rule.torch_optimizer).parameters
    ours = inspect.signature(rule.optimizer).parameters
    assert [(p.name, p.kind, p.default) for p in theirs.values()] == [
        (p.name, p.kind, p.default) for p in ours.values() if p.name in theirs
    ]


def chained(optimizer):
    return lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.9)]
    )


def sequential(optimizer):
    parts = [lr_scheduler.LinearLR(optimizer, total_iters=3), lr_scheduler.CosineAnnealingLR(optimizer, 5)]
    return lr_scheduler.SequentialLR(optimizer, parts, milestones=[3])


SCHEDULERS = {
    "ChainedScheduler": chained,
    "ConstantLR": lr_scheduler.ConstantLR,
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=3),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)),
    "LinearLR": lr_scheduler.LinearLR,
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda t: 0.9),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 4]),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=10),
    "PolynomialLR": lr_scheduler.PolynomialLR,
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    "SequentialLR": sequential,
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
}


def test_all_schedulers_are_covered():
    known = {
        name
        for name, kind in vars(lr_scheduler).items()
        if inspect.isclass(kind) and issubclass(kind, lr_scheduler.LRScheduler) and not name.startswith("_")
    }
    assert set(SCHEDULERS) == known - {"LRScheduler"}


@pytest.mark.parametrize("make_scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_schedulers_run(backend, make_scheduler):
    (param,) = helpers.zoo(backend, names=["matrix"])
    twin = torch.nn.Parameter(param.detach().clone())
    ours = helpers.RULES["sgd"].optimizer([param], lr=0.1, momentum=0.9, backend=backend, **OFF)
    theirs = torch.optim.SGD([twin], lr=0.1, momentum=0.9, **FOR_LOOP)
    schedulers = [make_scheduler(ours), make_scheduler(theirs)]
    history = []
    for t in range(8):
        helpers.set_gradients([param, twin], seed=t)
        twin.grad = param.grad
        for optimizer, scheduler in zip((ours, theirs), schedulers):
            optimizer.step()
            scheduler.step(*[1.0] * isinstance(scheduler, lr_scheduler.ReduceLROnPlateau))
        history.append([(o.param_groups[0]["lr"], o.param_groups[0]["momentum"]) for o in (ours, theirs)])
    assert all(mine == torchs for mine, torchs in history)
    assert len({mine for mine, _ in history}) > 1
    torch.testing.assert_close(param, twin, rtol=1e-6, atol=1e-6)
