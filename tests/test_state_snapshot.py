"""Both implementations of the snapshot of an optimizer's state see every exchange of an object."""

import pytest
import torch

from extrap_kernels import _C
from extrap_kernels.backends.snapshot import StateSnapshot


def exchange_tensor(state, param):
    state[param]["base"] = state[param]["base"].clone()


def add_entry(state, param):
    state[param]["more"] = torch.zeros(1)


def remove_entry(state, param):
    del state[param]["step"]


def exchange_dict(state, param):
    state[param] = dict(state[param])


def add_param(state, param):
    state[param.clone()] = {}


def reorder(state, param):
    state[param] = state.pop(param)


CHANGES = [exchange_tensor, add_entry, remove_entry, exchange_dict, add_param, reorder]


def make_state():
    return {torch.zeros(2): {"step": torch.zeros(()), "base": torch.zeros(2)} for _ in range(2)}


@pytest.mark.parametrize("snapshot", [_C.StateSnapshot, StateSnapshot], ids=["native", "python"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(snapshot, change):
    state = make_state()
    taken = snapshot(state)
    next(iter(state.values()))["base"].fill_(1)
    assert taken.matches(state)
    change(state, next(iter(state)))
    assert not taken.matches(state)
