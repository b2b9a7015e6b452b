"""Bad input raises before anything changes: options in mid-run, damaged state dicts."""

import copy
import math

import helpers
import numpy as np
import pytest
import torch

from extrap_kernels import ExtrapAdam, ExtrapLARS, ExtrapSGD

DELETED = object()
BAD_OPTIONS = [
    ("lr", None),
    ("lr", "0.1"),
    ("lr", torch.tensor([1.0, 2.0])),
    ("extrap_lr", "x"),
    ("momentum", None),
    ("weight_decay", "x"),
    ("noise_std", None),
    ("seed", None),
    ("seed", 1.5),
    ("nesterov", torch.tensor([1, 1])),
    ("maximize", None),
    ("max_grad_norm", "1"),
    ("extrapolation", "sideways"),
    ("state_dtype", [torch.float32]),
    ("momentum", DELETED),
    ("weight_decay", DELETED),
    ("noise", DELETED),
]


def two_groups(backend, optimizer_type=ExtrapSGD, **options):
    params = [torch.nn.Parameter(torch.ones(2, device=helpers.DEVICES[backend])) for _ in range(2)]
    groups = [{"params": [p]} for p in params]
    optimizer = optimizer_type(groups, lr=0.1, backend=backend, **options)
    for p in params:
        p.grad = torch.ones_like(p)
    return optimizer


@pytest.mark.parametrize("name, value", BAD_OPTIONS, ids=lambda v: v if isinstance(v, str) else type(v).__name__)
@pytest.mark.parametrize("first", [True, False], ids=["first step", "later step"])
def test_a_bad_option_of_a_later_group(backend, name, value, first):
    optimizer = two_groups(backend, momentum=0.9)
    if not first:
        optimizer.step()
    if value is DELETED:
        del optimizer.param_groups[1][name]
    else:
        optimizer.param_groups[1][name] = value
    before = helpers.snapshot(optimizer)
    with pytest.raises(ValueError, match=rf"{name}.*group 1|group 1.*{name}"):
        optimizer.step()
    helpers.assert_same_bits(helpers.snapshot(optimizer), before)


@pytest.mark.parametrize("betas", [("a", "b"), None, (0.9,), 0.9], ids=str)
def test_bad_betas(backend, betas):
    optimizer = two_groups(backend, ExtrapAdam)
    optimizer.step()
    optimizer.param_groups[1]["betas"] = betas
    before = helpers.snapshot(optimizer)
    with pytest.raises(ValueError, match="betas.*group 1"):
        optimizer.step()
    helpers.assert_same_bits(helpers.snapshot(optimizer), before)


@pytest.mark.parametrize("number", [np.float32(0.05), np.array(0.05), np.float64(0.05), 1], ids=repr)
@pytest.mark.parametrize("name", ["lr", "extrap_lr", "momentum", "weight_decay"])
def test_numbers_of_numpy(backend, name, number):
    results = []
    for value in (number, float(number)):
        optimizer = two_groups(backend, momentum=0.5)
        optimizer.param_groups[0][name] = value
        optimizer.step()
        results.append(helpers.snapshot(optimizer))
    helpers.assert_same_bits(*results)


def damaged(change):
    def apply(state_dict):
        change(state_dict)
        return state_dict

    return apply


def entry(name, value):
    return damaged(lambda d: d["state"][1].__setitem__(name, value))


def option(name, value):
    return damaged(lambda d: d["param_groups"][1].__setitem__(name, value))


DAMAGES = {
    "empty": (lambda d: {}, "not the state dict of an optimizer"),
    "a list": (lambda d: [1], "not the state dict of an optimizer.*list"),
    "of a model": (lambda d: {"weight": torch.ones(2)}, "not the state dict of an optimizer.*weight"),
    "step is not there": (damaged(lambda d: d["state"][1].pop("step")), "lacks 'step' for parameter 1"),
    "step is NaN": (entry("step", torch.tensor(math.nan)), "step count.*parameter 1"),
    "step is infinite": (entry("step", torch.tensor(math.inf)), "step count.*parameter 1"),
    "step is negative": (entry("step", torch.tensor(-5.0)), "step count.*parameter 1"),
    "step is a fraction": (entry("step", torch.tensor(1.5)), "step count.*parameter 1"),
    "step has elements": (entry("step", torch.ones(2)), "step count.*parameter 1"),
    "step is text": (entry("step", "two"), "step count 'two' for parameter 1"),
    "base is not there": (damaged(lambda d: d["state"][1].pop("base")), "lacks 'base' for parameter 1"),
    "base is a number": (entry("base", 1.0), "no dense tensor as 'base' for parameter 1"),
    "base is of integers": (entry("base", torch.ones(2, dtype=torch.int64)), "'base' of torch.int64 for parameter 1"),
    "base is complex": (entry("base", torch.ones(2, dtype=torch.complex64)), "'base' of torch.complex64"),
    "base is sparse": (entry("base", torch.ones(2).to_sparse()), "no dense tensor as 'base'"),
    "base is longer": (entry("base", torch.ones(3)), r"'base' of shape \(3,\) for parameter 1 of shape \(2,\)"),
    "a moment is longer": (entry("exp_avg", torch.ones(3)), r"'exp_avg' of shape \(3,\)"),
    "a moment is not there": (damaged(lambda d: d["state"][1].pop("exp_avg")), "lacks 'exp_avg' for parameter 1"),
    "state is a list": (damaged(lambda d: d["state"].__setitem__(1, [1, 2])), "a list as state of parameter 1"),
    "lr is text": (option("lr", "abc"), "group 1 of the loaded state dict"),
    "lr is negative": (option("lr", -1.0), "group 1 of the loaded state dict: Invalid learning rate"),
    "noise_std is negative": (option("noise_std", -1.0), "group 1 of the loaded state dict: Invalid noise_std"),
    "amsgrad": (option("amsgrad", True), "group 1 of the loaded state dict: Invalid amsgrad"),
    "unknown direction": (option("extrapolation", "sideways"), "group 1 of the loaded state dict: Invalid extrapol"),
    "seed is a fraction": (option("seed", 1.5), "group 1 of the loaded state dict: Invalid seed value: 1.5"),
    "unknown format": (option("state_dtype", torch.int8), "group 1 of the loaded state dict: Invalid state_dtype"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_dict_changes_nothing(backend, damage):
    optimizer = two_groups(backend, ExtrapAdam)
    optimizer.step()
    change, message = DAMAGES[damage]
    saved = change(copy.deepcopy(optimizer.state_dict()))
    before, groups = helpers.snapshot(optimizer), copy.deepcopy(optimizer.state_dict()["param_groups"])
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(saved)
    helpers.assert_same_bits(helpers.snapshot(optimizer), before)
    assert optimizer.state_dict()["param_groups"] == groups


@pytest.mark.parametrize("optimizer_type", [rule.optimizer for rule in helpers.RULES.values()] + [ExtrapLARS])
def test_resuming_adds_no_option(backend, optimizer_type):
    optimizer = two_groups(backend, optimizer_type)
    optimizer.step()
    before = [set(group) for group in optimizer.param_groups]
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    optimizer.step()
    assert [set(group) for group in optimizer.param_groups] == before


def test_a_state_dict_taken_inside_base_parameters_stays_as_it_is(backend):
    optimizer = two_groups(backend)
    optimizer.step()
    with optimizer.base_parameters():
        kept = optimizer.state_dict()
    fresh = two_groups(backend)
    fresh.load_state_dict(kept)
    fresh.train()
    fresh.step()


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(
    "option, value, before",
    [("momentum", 0.9, 0.0), ("extrapolation", "past_gradient", None)],
    ids=["momentum", "base"],
)
def test_own_state_dicts_load_after_an_option_was_switched_on(backend, option, value, before, mode):
    """Of parameters, too, that have not been stepped since: frozen ones, say."""
    pair = [torch.nn.Parameter(torch.ones(3, device=helpers.DEVICES[backend])) for _ in range(2)]
    optimizer = ExtrapSGD(pair, lr=0.1, backend=backend, **{"extrapolation": None, option: before})
    helpers.train(optimizer, steps=1)
    pair[0].grad = None
    optimizer.param_groups[0][option] = value
    if mode == "eval":
        optimizer.eval()
    values = [p.detach().clone() for p in pair]
    saved = copy.deepcopy(optimizer.state_dict())
    optimizer.load_state_dict(saved)
    optimizer.train()
    assert all(torch.equal(p, kept) for p, kept in zip(pair, values))
    helpers.train(optimizer, steps=1)
