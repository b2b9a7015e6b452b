"""CPU offload: the order of its copies, the memory that it frees, and what is refused."""

import copy
import gc
import pickle
import re

import helpers
import pytest
import torch
from late_link import LateLink
from offloading import assert_same, make_pair, offloaded
from small_net import loss_of, train
from torch import nn

from extrap_kernels import ExtrapAdamW, ExtrapSGD, offload, release_gradients
from extrap_kernels.offload import offload_over


def test_order_of_copies():
    """The host waits for a bucket of gradients at a time, and steps while the bucket before travels back."""
    model = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(3)))
    optimizer = offloaded(model, ExtrapSGD(model.parameters(), lr=0.1, backend="cpu"), bucket_mb=1e-6)
    model(torch.ones(1, 8)).sum().backward()
    optimizer.step()  # the first one waits for all gradients, to know whether it shall create the state only
    model.link.compute()
    model.link.log.clear()
    early = optimizer.step_early

    def step_early(number, positions):
        model.link.log.append(f"step {positions}")
        early(number, positions)

    optimizer.step_early = step_early
    model(torch.ones(1, 8)).sum().backward()
    assert model.link.log == ["download 7", "download 8", "download 9"], "backward waits for nothing"
    model.link.log.clear()
    optimizer.step()
    assert model.link.log == [
        "host waits for upload 6",  # of the step before
        *("host waits for download 7", "step (2,)", "upload 10"),
        *("host waits for download 8", "step (1,)", "upload 11"),
        *("host waits for download 9", "step (0,)", "upload 12"),
    ]
    model.link.log.clear()
    optimizer.eval()
    assert model.link.log[0] == "host waits for upload 12", "before it writes what is being sent"
    assert model.link.log[1:] == ["upload 13"]


def test_clipping_waits_for_all_gradients():
    model = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(2)))
    optimizer = offloaded(model, ExtrapSGD(model.parameters(), max_grad_norm=1.0, backend="cpu"), bucket_mb=1e-6)
    model(torch.ones(1, 8)).sum().backward()
    optimizer.step()
    assert model.link.log[2:] == ["host waits for download 2", "host waits for download 1", "upload 3"]


def test_link_shows_what_is_read_or_written_too_early():
    link = LateLink()
    source, target = torch.ones(3), torch.zeros(3)
    copied = link.download(source, target)
    assert target.isnan().all()
    copied.synchronize()
    assert torch.equal(target, source)
    link.upload([(source, target)])
    source.zero_()
    with pytest.raises(AssertionError, match="written before upload 2 was done"):
        link.compute()


def test_gradients_are_freed_in_backward_and_memory_is_allocated_once():
    model, optimizer = make_pair("adamw")[1]
    allocated = []
    allocate = model.link.host_memory
    model.link.host_memory = lambda like: allocated.append(like) or allocate(like)
    for passes, expected in ((1, True), (1, False), (3, True), (2, False)):
        allocated.clear()
        optimizer.zero_grad()
        for _ in range(passes):
            loss_of(model, 1).backward()
            assert all(p.grad is None for p in model.parameters())
        optimizer.step()
        assert bool(allocated) == expected


# What is refused, and what is forgotten


def test_refused_steps_change_nothing():
    """What is wrong with the last bucket is found before the first one is stepped; then the step can be taken."""
    pair = make_pair()
    for model, optimizer in pair:
        train(model, optimizer, [1])
        optimizer.zero_grad()
        loss_of(model, 2).backward()
    model, optimizer = pair[1]
    model.link.compute()
    before = copy.deepcopy(model.state_dict()), helpers.snapshot(optimizer)
    group = optimizer.param_groups[0]
    for name, bad in (("momentum", "much"), ("noise", "pink"), ("state_dtype", torch.float64)):
        good, group[name] = group[name], bad
        with pytest.raises(ValueError, match=f"Invalid {name} value"):
            optimizer.step()
        group[name] = good
        helpers.assert_same_bits((model.state_dict(), helpers.snapshot(optimizer)), before)
    for _, optimizer in pair:
        optimizer.step()
    assert_same(pair)


def test_sparse_gradients_are_refused():
    model, optimizer = make_pair()[1]
    train(model, optimizer, [1])
    model.link.compute()
    before = copy.deepcopy(model.state_dict()), helpers.snapshot(optimizer)
    loss_of(model, 2).backward()
    optimizer.zero_grad()
    model.blocks[3].weight.grad = torch.ones(24, 24)
    model.tied.grad = torch.ones(24, 17).to_sparse()
    with pytest.raises(RuntimeError, match=r"gradient of parameter 0 of group 0.*sparse"):
        optimizer.step()
    helpers.assert_same_bits((model.state_dict(), helpers.snapshot(optimizer)), before)


def test_grad_scaler_is_refused():
    model, optimizer = make_pair()[1]
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(loss_of(model, 1)).backward()
    with pytest.raises(RuntimeError, match="a GradScaler looks for infinite gradients before step"):
        scaler.step(optimizer)
    optimizer.found_inf = torch.zeros(())
    with pytest.raises(RuntimeError, match="a GradScaler looks"):
        optimizer.step()


def test_local_gradients_are_refused():
    model, optimizer = make_pair()[1]
    loss_of(model, 1).backward()
    optimizer.local_gradients[model.tied] = torch.ones_like(model.tied)
    with pytest.raises(RuntimeError, match="optimizer.local_gradients are on the accelerator"):
        optimizer.step()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_copies_are_refused(copied):
    with pytest.raises(RuntimeError, match=r"cannot be copied or pickled.*save state_dict"):
        copied(make_pair()[1][1])


def refusals():
    linear = nn.Linear(2, 2)
    yield "bucket_mb", ValueError, linear, ExtrapSGD(linear.parameters()), {"bucket_mb": 0}
    yield "shares memory", ValueError, linear, ExtrapSGD([linear.weight, nn.Parameter(linear.weight.detach()[1:])]), {}
    lazy = nn.LazyLinear(2)
    yield "lazy, sparse or nested", RuntimeError, lazy, ExtrapSGD(lazy.parameters()), {}
    flat = nn.Linear(2, 2)
    flat.weight._fsdp_flattened = True
    yield "made by FSDP1", RuntimeError, flat, ExtrapSGD(flat.parameters()), {}
    on_gpu = ExtrapSGD(linear.parameters())
    on_gpu.backend = "triton"
    yield "backend 'triton'", RuntimeError, linear, on_gpu, {}
    released = ExtrapSGD(linear.parameters())
    release_gradients(linear, released)
    yield "not released", RuntimeError, linear, released, {}
    halfway = ExtrapSGD(linear.parameters(), extrapolation="extragradient")
    halfway.extrapolate()
    yield "between the halves", RuntimeError, linear, halfway, {}


@pytest.mark.parametrize("case", list(refusals()), ids=lambda case: case[0])
def test_refusals(case):
    message, error, model, optimizer, options = case
    before = list(optimizer.param_groups[0]["params"])
    with pytest.raises(error, match=message):
        offload_over(LateLink(), model, optimizer, **options)
    assert all(a is b for a, b in zip(optimizer.param_groups[0]["params"], before, strict=True))


def test_offload_is_for_parameters_on_one_cuda_device():
    linear = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="the optimizer has parameters on the host only; offload.* one CUDA device"):
        offload(linear, ExtrapSGD(linear.parameters()))
    with pytest.raises(ValueError, match=re.escape("on ['meta']; offload()")):
        offload(linear, ExtrapSGD(nn.Linear(2, 2, device="meta").parameters()))
    with pytest.raises(TypeError, match="optimizer is a SGD"):
        offload(linear, torch.optim.SGD(linear.parameters()))


def test_offloaded_once_and_not_released():
    model, optimizer = make_pair()[1]
    with pytest.raises(RuntimeError, match="not offloaded yet"):
        offload(model, optimizer)
    with pytest.raises(RuntimeError, match="released already, by offload"):
        release_gradients(model, optimizer)


def test_forgotten():
    """An optimizer that nobody has is gone at once, and its hooks leave gradients alone."""
    model, optimizer = make_pair("adamw")[1]
    train(model, optimizer, [1])
    gc.disable()
    try:
        del optimizer
        loss_of(model, 1).backward()
        assert model.tied.grad is not None
    finally:
        gc.enable()


def test_messages_call_the_optimizer_by_its_name():
    _, optimizer = make_pair("adamw")[1]
    assert isinstance(optimizer, ExtrapAdamW) and type(optimizer).__name__ == "ExtrapAdamW"
