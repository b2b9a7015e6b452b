"""State takes the bytes that docs/design.md states, and a step allocates next to nothing on top of it."""

import ctypes
import gc
import weakref

import helpers
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from extrap_kernels import ExtrapAdamW, ExtrapLAMB, ExtrapLARS, ExtrapSGD

# Bytes of state per parameter, all of it in float32: base, and momentum or two moments.
STATE = {
    "sgd": (ExtrapSGD, {}, 4),
    "momentum": (ExtrapSGD, {"momentum": 0.9}, 8),
    "adamw": (ExtrapAdamW, {}, 12),
    "lars": (ExtrapLARS, {"momentum": 0.9}, 8),
    "lamb": (ExtrapLAMB, {}, 12),
}
NUMEL = 1 << 18


def make(case, dtype, backend, numel=NUMEL, **options):
    optimizer_type, own, _ = STATE[case]
    ones = torch.ones(256, numel // 1024, dtype=dtype, device=helpers.DEVICES[backend])
    params = [torch.nn.Parameter(ones.clone()) for _ in range(4)]
    return optimizer_type(params, backend=backend, **own, **options)


@pytest.mark.parametrize("take_out", ["clear", "exchange", "new parameter"])
def test_state_that_is_taken_out_is_freed_at_once(backend, take_out):
    """Between two steps, as those do it who make room for something else: the optimizer holds nothing more."""
    optimizer = make("adamw", torch.float32, backend)
    helpers.train(optimizer, steps=2)
    gc.collect()
    first = optimizer.param_groups[0]["params"][0]
    taken = optimizer.state[first]
    held = [weakref.ref(taken[name]) for name in ("base", "exp_avg", "exp_avg_sq")]
    if take_out == "clear":
        optimizer.state.clear()
    elif take_out == "exchange":
        optimizer.state[first] = {name: value.clone() for name, value in taken.items()}
    else:
        optimizer.param_groups[0]["params"][0] = torch.nn.Parameter(first.detach().clone())
        del optimizer.state[first]
    del taken
    assert [ref() for ref in held] == [None] * 3
    helpers.train(optimizer, steps=1)


@pytest.mark.parametrize("case", STATE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=helpers.describe)
def test_state_is_that_of_the_contract(backend, case, dtype):
    """With every extrapolation and noise; in eval mode there is one copy of the parameters more."""
    for perturbation in ({}, {"noise": "gaussian", "noise_scale": "tensor"}, helpers.EXTRAGRADIENT):
        optimizer = make(case, dtype, backend, max_grad_norm=1.0, **perturbation)
        helpers.train(optimizer, steps=2)
        sizes = {}
        for state in optimizer.state.values():
            for name, value in state.items():
                sizes[name] = sizes.get(name, 0) + value.untyped_storage().nbytes()
        assert sizes.pop("step") == 4 * 4  # four parameters
        assert sum(sizes.values()) == STATE[case][2] * NUMEL * (2 if dtype == torch.float64 else 1)
        optimizer.eval()
        held = {id(v): v for state in optimizer.state.values() for v in state.values() if v.dim()}
        assert sum(v.nbytes for v in held.values()) == sum(sizes.values()) + NUMEL * dtype.itemsize


def peak_of_step(optimizer):
    """Largest sum of what torch's CPU allocator hands out and has not yet got back during one step."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        optimizer.step()
    live = peak = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


def growth_of_step(optimizer):
    """How far one step lifts the largest resident size of the process, in bytes: all of its memory, torch's or not."""

    def status(name):
        return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

    def once():
        # What the allocator keeps of memory that was freed before would serve the step unseen.
        ctypes.CDLL(None).malloc_trim(0)
        try:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")  # the peak is now the current size
        except OSError as error:
            pytest.skip(f"the peak of the resident size cannot be reset: {error}")
        before = status("VmRSS")
        optimizer.step()
        return status("VmHWM") - before

    # The kernel may make a huge page of other memory of the process meanwhile. What the step takes, it takes each time.
    return min(once() for _ in range(3))


# (measure, elements): a process needs large tensors to be weighed to a percent of them.
MEASURES = {"allocator": (peak_of_step, NUMEL), "process": (growth_of_step, 1 << 24)}


def measured(measure, case, dtype, backend, **options):
    """What a step takes, in units of the parameters."""
    peak, numel = MEASURES[measure]
    optimizer = make(case, dtype, backend, numel, **options)
    params = helpers.parameters_of(optimizer)
    for p in params:
        p.grad = torch.full_like(p, 0.5)
    optimizer.step()
    optimizer.step()
    return peak(optimizer) / (numel * dtype.itemsize)


@pytest.mark.parametrize("options", [{}, {"noise": "gaussian", "noise_scale": "filter", "max_grad_norm": 1.0}], ids=str)
@pytest.mark.parametrize("case", STATE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=helpers.describe)
@pytest.mark.parametrize("measure", MEASURES)
def test_step_takes_under_a_percent_of_the_parameters(measure, case, dtype, options):
    assert measured(measure, case, dtype, "cpu", **options) < 0.01


@pytest.mark.parametrize("measure", MEASURES)
def test_copies_of_the_reference_are_seen(measure):
    """It holds a copy of at least one tensor at a time, of four; resident pages are counted to a few."""
    assert measured(measure, "momentum", torch.float32, "reference") > 0.2
