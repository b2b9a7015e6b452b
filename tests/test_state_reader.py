"""Both readers of an optimizer's state see every exchange of a parameter, and whatever the state is by then."""

import weakref

import pytest
import torch

from extrap_kernels import _C
from extrap_kernels.backends.state_reader import StateReader


def add_param(state, param):
    state[param.clone()] = {}


def reorder(state, param):
    state[param] = state.pop(param)


STATE_CHANGES = [add_param, reorder]


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


both = pytest.mark.parametrize("reader", [_C.StateReader, StateReader], ids=["native", "python"])


@both
def test_reads_what_is_there_now(reader):
    state, groups = make_state(), make_groups()
    first, second = groups[0]["params"][0], groups[1]["params"][1]
    state["somebody else's"] = None
    state[second], state[first] = {"step": torch.ones(())}, {}
    groups[1]["params"].append(second)  # twice
    taken = reader(state, groups)
    assert taken.read(state, groups) == [{}, None, None, state[second], state[second]]
    state[first] = {"step": torch.zeros(())}
    groups[0]["lr"], groups[0]["params"] = 0.2, list(groups[0]["params"])
    read = taken.read(state, groups)
    assert read[0] is state[first]


@both
@pytest.mark.parametrize("change", STATE_CHANGES)
def test_a_change_of_the_keys_is_seen(reader, change):
    state, groups = make_state(), make_groups()
    taken = reader(state, groups)
    change(state, next(iter(state)))
    assert taken.read(state, groups) is None


@both
@pytest.mark.parametrize("change", GROUP_CHANGES)
def test_a_change_of_the_groups_is_seen(reader, change):
    state, groups = make_state(), make_groups()
    taken = reader(state, groups)
    change(groups)
    assert taken.read(state, groups) is None


@both
def test_keeps_no_state(reader):
    class State(dict):
        pass

    state, groups = {torch.zeros(2): State()}, make_groups()
    taken = reader(state, groups)
    taken.read(state, groups)
    freed = weakref.ref(next(iter(state.values())))
    state.clear()
    assert freed() is None
