"""torch's wrapper of step() is entered whenever there is something for it to do."""

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.profiler import ProfilerActivity, profile

from extrap_kernels import ExtrapSGD


class Subclass(ExtrapSGD):
    """Overrides step() and calls it."""

    def step(self, closure=None):
        return super().step(closure)


@pytest.fixture(params=[ExtrapSGD, Subclass])
def optimizer(request):
    param = torch.nn.Parameter(torch.ones(3))
    param.grad = torch.ones(3)
    return request.param([param])


def calls_of(register, optimizer):
    calls = []
    handle = register(lambda which, args, kwargs: calls.append((which, args, kwargs)))
    optimizer.step()
    handle.remove()
    optimizer.step()
    return calls


@pytest.mark.parametrize("when", ["pre", "post"])
@pytest.mark.parametrize("everywhere", [False, True])
def test_hooks_are_called_while_registered(optimizer, when, everywhere):
    everywhere_by = {"pre": register_optimizer_step_pre_hook, "post": register_optimizer_step_post_hook}
    register = everywhere_by[when] if everywhere else getattr(optimizer, f"register_step_{when}_hook")
    calls = calls_of(register, optimizer)
    assert {which for which, _, _ in calls} == {optimizer}
    # torch wraps the step() of each class, so that the hooks of an overridden one may be called by both.
    assert len(calls) == 1 or (type(optimizer) is Subclass and len(calls) == 2)


def test_profiler_sees_the_step(optimizer):
    optimizer.step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        optimizer.step()
    assert f"Optimizer.step#{type(optimizer).__name__}.step" in {event.key for event in profiler.key_averages()}


def test_closure_and_its_loss_go_through(optimizer):
    assert optimizer.step(lambda: 7.0) == optimizer.step(closure=lambda: 7.0) == 7.0
