"""Both implementations of the guard of an optimizer's objects see every exchange of one."""

import pytest
import torch

from extrap_kernels import _C
from extrap_kernels.backends.state_guard import StateGuard


def exchange_dict(state, param):
    state[param] = dict(state[param])


def add_param(state, param):
    state[param.clone()] = {}


def reorder(state, param):
    state[param] = state.pop(param)


STATE_CHANGES = [exchange_dict, add_param, reorder]


def exchange_param(groups):
    groups[0]["params"][0] = groups[0]["params"][0].clone()


def append_param(groups):
    groups[1]["params"].append(torch.zeros(2))


def remove_param(groups):
    del groups[1]["params"][0]


def move_param(groups):
    groups[1]["params"].insert(0, groups[0]["params"].pop())


def remove_group(groups):
    del groups[1]


def add_group(groups):
    groups.append({"params": []})


GROUP_CHANGES = [exchange_param, append_param, remove_param, move_param, remove_group, add_group]


def make_state():
    return {torch.zeros(2): {"step": torch.zeros(()), "base": torch.zeros(2)} for _ in range(2)}


def make_groups():
    return [{"params": [torch.zeros(2) for _ in range(2)], "lr": 0.1} for _ in range(2)]


both = pytest.mark.parametrize("guard", [_C.StateGuard, StateGuard], ids=["native", "python"])


@both
@pytest.mark.parametrize("change", STATE_CHANGES)
def test_a_change_of_the_state_is_seen(guard, change):
    state, groups = make_state(), make_groups()
    taken = guard(state, groups)
    # What is inside the dicts is read anew in every step.
    first = next(iter(state.values()))
    first["base"] = first.pop("base").clone()
    first["more"] = first.pop("step")
    assert taken.matches(state, groups)
    change(state, next(iter(state)))
    assert not taken.matches(state, groups)


@both
@pytest.mark.parametrize("change", GROUP_CHANGES)
def test_a_change_of_the_groups_is_seen(guard, change):
    state, groups = make_state(), make_groups()
    taken = guard(state, groups)
    groups[0]["lr"] = 0.2
    groups[0]["params"] = list(groups[0]["params"])
    assert taken.matches(state, groups)
    change(groups)
    assert not taken.matches(state, groups)
