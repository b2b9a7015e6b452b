"""Schedulers drive the outer and the inner learning rate, momentum and betas; the inner rate may go its own way."""

import helpers
import pytest
import torch
from test_torch_parity import SCHEDULERS
from torch.optim import lr_scheduler

OPTIONS = {"sgd": {"momentum": 0.9}, "adamw": {}}
CYCLED = {"sgd": ("lr", "momentum"), "adamw": ("lr", "betas")}


def make(backend, rule, **options):
    params = helpers.zoo(backend, names=["matrix", "vector"])
    return helpers.RULES[rule].optimizer(params, lr=0.1, backend=backend, **OPTIONS[rule], **options)


def step(optimizer, seed):
    helpers.set_gradients(helpers.parameters_of(optimizer), seed)
    optimizer.step()


@pytest.mark.parametrize("rule", OPTIONS)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_scheduled_run_is_one_with_the_options_of_torch_set_by_hand(backend, rule, name):
    """The options are those that the same scheduler gives torch's optimizer."""
    ours, by_hand = (make(backend, rule, extrap_ratio=2.0, noise="uniform") for _ in range(2))
    (twin,) = helpers.zoo(backend, names=["matrix"])
    theirs = helpers.RULES[rule].torch_optimizer([twin], lr=0.1, **OPTIONS[rule])
    schedulers = [SCHEDULERS[name](optimizer) for optimizer in (ours, theirs)]
    history = set()
    for t in range(8):
        options = {option: theirs.param_groups[0][option] for option in CYCLED[rule]}
        history.add(tuple(options.values()))
        by_hand.param_groups[0].update(options, extrap_lr=2.0 * options["lr"])
        step(ours, seed=t)
        step(by_hand, seed=t)
        helpers.assert_same_bits(helpers.snapshot(ours), helpers.snapshot(by_hand))
        theirs.step()
        for scheduler in schedulers:
            scheduler.step(*[1.0] * isinstance(scheduler, lr_scheduler.ReduceLROnPlateau))
    assert ours.param_groups[0]["extrap_lr"] is None
    assert len({lr for lr, _ in history}) > 1
    assert (len({other for _, other in history}) > 1) == (name in ("CyclicLR", "OneCycleLR"))


@pytest.mark.parametrize("change", [lambda t: 0.3, lambda t: 0.3 * 0.5**t, lambda t: torch.tensor(0.3 / (t + 1))])
def test_inner_rate_on_its_own(backend, change):
    """Set, it does not follow lr; nor do its changes touch the base iterate."""
    optimizer, plain = make(backend, "sgd", extrap_lr=change(0)), make(backend, "sgd", extrapolation=None)
    schedulers = [lr_scheduler.ExponentialLR(each, 0.5) for each in (optimizer, plain)]
    for t in range(4):
        optimizer.param_groups[0]["extrap_lr"] = change(t)
        for each, scheduler in zip((optimizer, plain), schedulers):
            step(each, seed=t)
            scheduler.step()
        for p, q in zip(helpers.parameters_of(optimizer), helpers.parameters_of(plain)):
            base = optimizer.base_of(p)
            helpers.assert_same_bits(base, plain.base_of(q))
            torch.testing.assert_close(p.detach(), base - change(t) * p.grad, rtol=1e-6, atol=1e-6)
