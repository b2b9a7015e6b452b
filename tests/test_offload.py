"""CPU offload gives the bits of the same optimizer over parameters on the host, whatever is done with it."""

import copy

import helpers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from late_link import LateLink
from offloading import assert_same, make_pair, offloaded
from small_net import RULES, loss_of, make, train
from torch import nn

from extrap_kernels.offload import offload_over


def closure_of(model, optimizer, t):
    def closure():
        optimizer.zero_grad()
        loss = loss_of(model, t)
        loss.backward()
        return loss

    return closure


# The bits


@pytest.mark.parametrize("rule", RULES)
def test_training(rule):
    """Two groups and dtypes, tied, frozen, late and unused parameters, a scheduler made before, changes of mode."""
    pair = [make("cpu", rule) for _ in range(2)]
    schedulers = [torch.optim.lr_scheduler.LinearLR(optimizer, 0.2, 1.0, 4) for _, optimizer in pair]
    offloaded(*pair[1])
    for steps in (range(3), range(3, 5)):
        for each, scheduler in zip(pair, schedulers):
            train(*each, steps, scheduler)
        assert_same(pair)
        for mode in (False, True):
            for _, optimizer in pair:
                optimizer.train(mode)
            assert_same(pair)
    model, optimizer = pair[1]
    assert float(optimizer.state[optimizer.param_groups[0]["params"][0]]["step"]) == 5
    assert len(optimizer.state) == len(pair[0][1].state)
    assert all(p.grad is None for p in model.parameters())


PERTURBATIONS = [
    *helpers.PERTURBATIONS,
    {"extrapolation": "momentum", "extrap_norm": "global", "extrap_lr": 0.3},
    {"extrapolation": "past_update", "max_grad_norm": 0.5},
]
DTYPES = (torch.float32, torch.bfloat16)
FORMATS = (torch.float32, torch.bfloat16, torch.uint8)
# Two buckets or more, blocks of 16 numbers with shared exponents, and layouts that a copy could lose.
SHAPES = ("scalar", "matrix", "channels_last", "transposed", "columns", "empty", "offset")


def leaves(dtype):
    generator = torch.Generator().manual_seed(1)
    large = torch.randn(64, 66, generator=generator).to(dtype)
    return [*helpers.zoo("cpu", dtype, SHAPES), nn.Parameter(large)]


def backward(params, seed, present):
    """Gradients that are random numbers, the same for equal seeds."""
    pairs = zip(params, present)
    loss = sum((p * helpers.random_like(p, seed + k)).sum().float() for k, (p, there) in enumerate(pairs) if there)
    if any(present):
        loss.backward()


@given(data=st.data())
def test_any_options(data):
    """Drawn: optimizer, options, dtype, formats, size of buckets, passes in a step, parameters without gradient."""
    name = data.draw(st.sampled_from(sorted(helpers.RULES)))
    rule = helpers.RULES[name]
    variant = rule.variants[data.draw(st.sampled_from(sorted(rule.variants)))]
    perturbation = data.draw(st.sampled_from(PERTURBATIONS))
    if perturbation.get("extrap_norm") and name in ("sgd", "lars"):  # the norm of a momentum needs one
        variant = {**variant, "momentum": 0.9}
    dtype, state_dtype = data.draw(st.sampled_from(DTYPES)), data.draw(st.sampled_from(FORMATS))
    bucket_mb = data.draw(st.sampled_from((1e-6, 1e-3, 64)))
    options = {"lr": 0.1, "backend": "cpu", "state_dtype": state_dtype, **variant, **perturbation}
    params = [leaves(dtype) for _ in range(2)]
    optimizers = [rule.optimizer([{"params": ps[:3]}, {"params": ps[3:], "lr": 0.03}], **options) for ps in params]
    link = LateLink()
    offload_over(link, nn.ParameterList(params[1]), optimizers[1], bucket_mb)
    twice = perturbation.get("extrapolation") == "extragradient"
    for t in range(3):
        for half in range(2 if twice else 1):
            present = data.draw(st.lists(st.booleans(), min_size=len(params[0]), max_size=len(params[0])))
            passes = data.draw(st.integers(1, 3))
            for ps, optimizer in zip(params, optimizers):
                link.compute()
                optimizer.zero_grad()
                for k in range(passes):
                    backward(ps, 1000 * t + 100 * half + 10 * k, present)
                optimizer.extrapolate() if half < twice else optimizer.step()
    link.compute()
    helpers.assert_same_bits(params[1], params[0])
    helpers.assert_same_bits(*(helpers.snapshot(optimizer) for optimizer in reversed(optimizers)))


@pytest.mark.parametrize("options", [{}, {"max_grad_norm": 0.1}], ids=helpers.describe)
def test_accumulated_and_dropped_gradients(options):
    """Some parameters get a gradient in one of the passes only. What zero_grad() drops does not count."""
    pair = make_pair("adamw", **options)
    for model, optimizer in pair:
        train(model, optimizer, range(3), passes=3)
        loss_of(model, 7).backward()
        train(model, optimizer, range(2))
    assert_same(pair)


NORMS = [
    {"extrapolation": "momentum", "extrap_norm": "global", "extrap_lr": 0.3, "noise": None},
    {"max_grad_norm": 0.1},
]


@pytest.mark.parametrize("options", NORMS, ids=helpers.describe)
def test_norms_are_those_of_all_gradients(options):
    pair = make_pair(**options)
    for each in pair:
        train(*each, range(3))
    assert_same(pair)
    assert pair[0][1].grad_norm == pair[1][1].grad_norm


def test_gradients_that_no_hook_has_seen():
    """They cross in step(), and zero_grad() drops them."""
    pair = make_pair()
    for model, optimizer in pair:
        train(model, optimizer, [1])
        optimizer.zero_grad()
        model.tied.grad = torch.ones_like(model.tied)
        optimizer.zero_grad()
        model.norm.weight.grad = torch.ones_like(model.norm.weight)
        getattr(model, "link", LateLink()).log.clear()
        optimizer.step()
    assert_same(pair)
    assert len([line for line in pair[1][0].link.log if line.startswith("download")]) == 1


def test_first_step_at_learning_rate_zero():
    """Schedules that warm up begin so; an optimizer without state takes no gradients and lr=0 for a wish for state."""
    pair = make_pair("adamw", lr=0.0)
    for each in pair:
        train(*each, range(1))
    assert_same(pair)
    assert len(pair[1][1].state) > 0


def test_closures():
    pair = make_pair()
    for t in range(3):
        losses = [optimizer.step(closure_of(model, optimizer, t)) for model, optimizer in pair]
        assert torch.equal(*losses)
    assert_same(pair)


EXTRAGRADIENT = {"extrapolation": "extragradient", "noise": None}


def test_extragradient_with_a_closure():
    pair = make_pair(**EXTRAGRADIENT)
    for model, optimizer in pair:
        for t in range(3):
            optimizer.step(closure_of(model, optimizer, t))
    assert_same(pair)


def test_extragradient_by_hand_and_cancelled():
    """In the second batch `late` gets a gradient in the first half only; the third one is skipped."""
    pair = make_pair(**EXTRAGRADIENT)
    for model, optimizer in pair:
        for first, second in ((1, 3), (1, 2), (1, None)):
            optimizer.zero_grad()
            loss_of(model, first).backward()
            optimizer.extrapolate()
            optimizer.zero_grad()
            if second is None:
                optimizer.cancel_extrapolation()
                continue
            loss_of(model, second).backward()
            optimizer.step()
    assert_same(pair)


# Saving, loading, changing


@pytest.mark.parametrize("evaluated", [False, True])
def test_state_dicts_go_to_runs_without_offload_and_back(evaluated):
    pair = make_pair("adamw")
    for model, optimizer in pair:
        train(model, optimizer, range(3))
        optimizer.train(not evaluated)
    pair[1][0].link.compute()
    saved = [copy.deepcopy((model.state_dict(), optimizer.state_dict())) for model, optimizer in pair]
    helpers.assert_same_bits(saved[1], saved[0])
    others = [*make_pair("adamw"), make("cpu", "adamw", state_dtype=torch.float32)]
    offloaded(*others[2])
    loss_of(others[1][0], 7).backward()
    others[1][1].zero_grad()
    for (model, optimizer), state_dict in zip(others, (saved[1], saved[0], saved[0])):
        for part, loaded in ((model, state_dict[0]), (optimizer, state_dict[1])):
            part.load_state_dict(loaded)
    for model, optimizer in (pair[0], *others):
        optimizer.train()
        train(model, optimizer, range(3, 5))
    assert_same([pair[0], others[1]])
    assert_same([pair[0], others[2]])
    helpers.assert_same_bits(helpers.snapshot(others[0][1]), helpers.snapshot(pair[0][1]))


def test_offload_in_mid_run():
    """The state moves, and keeps its bits; an optimizer in eval mode goes on from there."""
    pair = [make("cpu", "lamb") for _ in range(2)]
    for model, optimizer in pair:
        train(model, optimizer, range(2))
        optimizer.eval()
    offloaded(*pair[1])
    assert_same(pair)
    for model, optimizer in pair:
        optimizer.train()
        train(model, optimizer, range(2))
    assert_same(pair)


@pytest.mark.parametrize("options", [{}, {"extrapolation": None, "noise": None}], ids=helpers.describe)
def test_changes_by_hand_count(options):
    pair = make_pair(**options)
    for model, optimizer in pair:
        train(model, optimizer, range(2))
        with optimizer.base_parameters(), torch.no_grad():
            getattr(model, "link", LateLink()).compute()
            for p in model.parameters():
                p.clamp_(-0.1, 0.1)
        train(model, optimizer, range(2))
        if options:
            with torch.no_grad():
                getattr(model, "link", LateLink()).compute()
                model.tied.mul_(0.5)
            train(model, optimizer, range(1))
    assert_same(pair)


@pytest.mark.parametrize("options", [{}, {"extrapolation": None, "noise": None}], ids=helpers.describe)
def test_base_of_knows_parameters_of_the_model(options):
    pair = make_pair(**options)
    for model, optimizer in pair:
        train(model, optimizer, range(2))
        getattr(model, "link", LateLink()).compute()
        with torch.no_grad():
            if options:
                model.narrow.weight.copy_(torch.full_like(model.narrow.weight, 0.25))
                assert optimizer.base_of(model.narrow.weight).eq(0.25).all()
            for p in (model.tied, model.narrow.weight, model.never.weight):
                optimizer.base_of(p).mul_(0.5)
        train(model, optimizer, range(2))
    assert_same(pair)
    for p, q in zip(pair[0][0].parameters(), pair[1][0].parameters()):
        helpers.assert_same_bits(pair[1][1].base_of(q), pair[0][1].base_of(p))


@pytest.mark.parametrize(
    "options",
    [{}, {"extrapolation": "momentum"}, {"extrapolation": None, "noise": None}],
    ids=helpers.describe,
)
def test_set_base_takes_parameters_of_the_model(options):
    """In either mode, also of one that has never been stepped."""
    pair = make_pair(**options)
    for evaluating in (False, True):
        for model, optimizer in pair:
            train(model, optimizer, range(2))
            optimizer.train(not evaluating)
            for p in (model.tied, model.narrow.weight, model.never.weight):
                optimizer.set_base(p, torch.full_like(p, 0.25))
                torch.testing.assert_close(optimizer.base_of(p).float(), torch.full_like(p, 0.25).float())
            optimizer.train()
        assert_same(pair)


def test_writing_in_train_mode_is_noticed_and_steps_are_not_taken_for_it(recwarn):
    model, optimizer = make_pair("adamw")[1]
    train(model, optimizer, range(40))
    assert not recwarn
    with pytest.warns(UserWarning, match="was changed between steps"):
        for t in range(20):
            model.link.compute()
            with torch.no_grad():
                for p in model.parameters():
                    p.add_(0.01)
            train(model, optimizer, [t])


def test_parameters_that_are_added_or_thawed():
    pair = [make("cpu") for _ in range(2)]
    for model, _ in pair:
        model.blocks[1].requires_grad_(False)
    offloaded(*pair[1])
    for model, optimizer in pair:
        train(model, optimizer, [1])
        model.blocks[1].requires_grad_(True)
        train(model, optimizer, [1])
    loss_of(pair[1][0], 1).backward()
    assert all(p.grad is None for p in pair[1][0].parameters()), "those that are thawed are taken in backward now"
    for model, optimizer in pair:
        optimizer.add_param_group({"params": list(model.frozen.requires_grad_(True).parameters()), "lr": 0.01})
        train(model, optimizer, [1, 3])
    assert_same(pair)
    model, optimizer = pair[1]
    loss_of(model, 1).backward()
    assert all(p.grad is None for p in model.parameters()), "those that are added, too"
    assert len(optimizer._offload._pairs) == sum(len(bucket.params) for bucket in optimizer._offload._buckets)
    with pytest.raises(ValueError, match="shares memory with a parameter before it, or is listed twice"):
        optimizer.add_param_group({"params": [model.tied]})
    optimizer.zero_grad()
    for each in pair:
        train(*each, [2])
    assert_same(pair)
