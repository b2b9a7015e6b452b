"""What launches captured in CUDA graphs use stays theirs, with "capturing" faked: the launches run at once."""

import gc
import weakref

import helpers
import pytest
import torch

from extrap_kernels import ExtrapSGD, capture

ON_DEVICE = [name for name in helpers.FAST_BACKENDS if name != "cpu"]
NOISE = {"noise": "uniform", "noise_scale": "filter"}


@pytest.fixture
def capturing(monkeypatch):
    """Turns the capture on and off."""
    state = {"on": False}
    monkeypatch.setattr(capture, "is_capturing", lambda device: state["on"])
    monkeypatch.setattr(capture, "_kept", [])
    return lambda on: state.update(on=on)


def make(backend, **options):
    """An optimizer that has taken a step; one of its parameters has gaps."""
    params = helpers.zoo(backend, names=("blocks", "matrix", "columns"))
    optimizer = ExtrapSGD(params, lr=0.1, backend=backend, **options)
    helpers.train(optimizer, steps=1)
    return optimizer


def executor_of(optimizer):
    (executor,) = optimizer.stepper._plans[0, None].executors
    return executor


def memory_of(executor):
    """What was allocated with the plan, by name."""
    (copy,) = executor._copies.own
    used = {"counters": executor._counters, "dense copy": copy}
    if hasattr(executor, "_scratch"):
        return {**used, "scratch": executor._scratch}
    sums = (executor._gradient_sums, executor._direction_sums, executor._noise_rows["filter"].sums)
    return {**used, "table": executor._table.tensors, "chunks": executor._chunks, **dict(zip("abc", sums))}


def alive(references):
    gc.collect()
    return {name for name, reference in references.items() if reference() is not None}


@pytest.mark.parametrize("backend", ON_DEVICE)
@pytest.mark.parametrize("captured", [False, True])
def test_memory_of_a_plan_outlives_it_if_it_was_captured(capturing, backend, captured):
    optimizer = make(backend, max_grad_norm=1.0, extrap_norm="global", **NOISE)
    used = {name: weakref.ref(tensor) for name, tensor in memory_of(executor_of(optimizer)).items()}
    capturing(captured)
    helpers.train(optimizer, steps=1)
    capturing(False)
    optimizer.stepper.release()
    assert alive(used) == (set(used) if captured else set())


@helpers.needs_emulation
def test_scratch_that_grows_within_a_captured_step_is_kept(capturing):
    """The norm of the gradients is taken with less of it than the norms of rows."""
    optimizer = make("cuda-emulated", max_grad_norm=1.0)
    used = {name: weakref.ref(tensor) for name, tensor in memory_of(executor_of(optimizer)).items()}
    optimizer.param_groups[0].update(NOISE)
    capturing(True)
    helpers.train(optimizer, steps=1)
    executor = executor_of(optimizer)
    assert executor._scratch is not used["scratch"](), "it has not grown"
    assert alive(used) == set(used)


@helpers.needs_emulation
def test_counters_that_a_graph_sets_to_0_count_for_nobody_else(capturing):
    """They hold anything before the first replay, and in a second graph if the first one is not replayed."""
    optimizer, twin = (make("cuda-emulated") for _ in range(2))
    for each in (optimizer, twin):
        each.param_groups[0].update(NOISE, max_grad_norm=1.0)
    capturing(True)
    for each in (optimizer, twin):
        helpers.train(each, steps=1)
    for now_capturing in (True, False):
        executor_of(optimizer)._counters.fill_(7)
        capturing(now_capturing)
        helpers.train(optimizer, steps=1, seed=1)
        capturing(False)
        helpers.train(twin, steps=1, seed=1)
        helpers.assert_same_bits(helpers.snapshot(optimizer), helpers.snapshot(twin))


@pytest.mark.parametrize("backend", ON_DEVICE)
@pytest.mark.parametrize("captured", [False, True])
def test_scalars_and_local_gradients_of_a_captured_step_are_kept(capturing, backend, captured):
    """The step clears local gradients, GradScaler its attributes, and a scheduler may exchange the learning rate."""
    optimizer = make(backend)
    group, device = optimizer.param_groups[0], helpers.DEVICES[backend]
    param = group["params"][0]
    group["lr"] = torch.tensor(0.1, dtype=torch.float16, device=device)  # one that is converted
    optimizer.grad_scale, optimizer.found_inf = (torch.tensor(value, device=device) for value in (2.0, 0.0))
    optimizer.local_gradients[param] = torch.ones_like(param)
    given = (group["lr"], optimizer.grad_scale, optimizer.found_inf, optimizer.local_gradients[param])
    used = dict(zip(("lr", "grad_scale", "found_inf", "local gradient"), map(weakref.ref, given)))
    helpers.set_gradients(group["params"], seed=3)
    capturing(captured)
    optimizer.step()
    capturing(False)
    del given, optimizer.grad_scale, optimizer.found_inf
    group["lr"] = 0.1
    assert alive(used) == (set(used) if captured else set())
