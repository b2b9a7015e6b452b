"""What a step costs, counted and not timed: calls, launches, operations of torch, and bytes."""

import sys
from collections import Counter

import helpers
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench import baselines
from extrap_kernels import ExtrapAdamW, ExtrapSGD

OPTIMIZERS = {
    "sgd": (ExtrapSGD, {"momentum": 0.9, "nesterov": True}),
    "adamw": (ExtrapAdamW, {}),
    "noise": (ExtrapSGD, {"noise": "gaussian"}),
}


def stepped(case, tensors, dtype=torch.float32):
    """An optimizer that has its state and its plans."""
    optimizer_type, options = OPTIMIZERS[case]
    params = [torch.nn.Parameter(torch.ones(3, dtype=dtype)) for _ in range(tensors)]
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer = optimizer_type(params, **options)
    optimizer.step()
    optimizer.step()
    return optimizer


def calls_in_step(optimizer):
    """How often each function is called: Python's by name, those of C by name and module."""
    counts = Counter()

    def count(frame, event, function):
        if event == "call":
            counts["python"] += 1
        elif event == "c_call":
            counts["c"] += 1
            counts[function.__name__] += 1

    sys.setprofile(count)
    try:
        optimizer.step()
    finally:
        sys.setprofile(None)
    return counts


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_calls_do_not_grow_with_tensors(case):
    few, many = (calls_in_step(stepped(case, tensors)) for tensors in (1, 300))
    assert few == many
    assert few["python"] <= 45 and few["c"] <= 40  # as many with torch 2.13, at most


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_one_launch_for_each_bucket(case):
    """Of which there is one, whatever the number of tensors; one more for another dtype."""
    assert calls_in_step(stepped(case, 300))["run"] == 1
    optimizer = stepped(case, 300)
    other = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    other.grad = torch.ones_like(other)
    optimizer.add_param_group({"params": [other]})
    optimizer.step()
    assert calls_in_step(optimizer)["run"] == 2


class CountOperations(TorchDispatchMode):
    """Counts what torch is asked to compute."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("case", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=helpers.describe)
def test_no_operation_of_torch(case, dtype):
    """Each would be a pass over memory of its own, and an allocation at times."""
    optimizer = stepped(case, 5, dtype)
    with CountOperations() as operations:
        optimizer.step()
    assert operations.count == 0
    optimizer.param_groups[0]["params"][0].grad = torch.ones(6, dtype=dtype)[::2]  # not in the layout of the parameter
    with CountOperations() as operations:
        optimizer.step()
    assert operations.count > 0


# The traffic floor of docs/design.md.
FLOOR = {"sgd": {torch.float32: 24, torch.bfloat16: 20}, "adamw": {torch.float32: 32, torch.bfloat16: 28}}


@pytest.mark.parametrize("rule", FLOOR)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=helpers.describe)
def test_bytes_of_the_buffers_are_the_floor(rule, dtype):
    """The state that is there, read and written; the gradient read; the parameter written."""
    optimizer = stepped(rule, 1, dtype)
    (state,) = optimizer.state.values()
    buffers = sum(value.itemsize for name, value in state.items() if name != "step")
    assert 2 * buffers + 2 * dtype.itemsize == FLOOR[rule][dtype] == baselines.our_bytes(rule, dtype)


@pytest.mark.parametrize("count", [2.0**24 - 2, 2.0**24, 2.0**25])
def test_counts_beyond_float32(backend, count):
    """On the host the count goes on, and with it the noise; a count on the device stops."""
    p = torch.nn.Parameter(torch.zeros(64, device=helpers.DEVICES[backend]))
    optimizer = ExtrapSGD([p], lr=0.1, noise="uniform", noise_std=1.0, backend=backend)
    helpers.train(optimizer, steps=1)
    saved = optimizer.state_dict()
    saved["state"][0]["step"] = torch.tensor(count, dtype=torch.float64)
    optimizer.load_state_dict(saved)
    points = []
    for _ in range(4):
        p.grad = torch.zeros_like(p)
        optimizer.step()
        points.append(p.detach().clone())
    if backend in ("cpu", "reference"):
        assert float(optimizer.state[p]["step"]) == count + 4
        assert len({tuple(point.tolist()) for point in points}) == 4
    else:
        assert float(optimizer.state[p]["step"]) == max(count, 2.0**24)
