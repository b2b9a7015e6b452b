"""What each process does in test_wrappers.py: optimizers of torch.distributed around ours."""

import copy

import torch
import torch.distributed as dist
from ddp_worker import Net, copies, loss_of
from helpers import RULES, assert_same_bits, set_gradients
from torch.distributed.optim import PostLocalSGDOptimizer, ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

from extrap_kernels import ExtrapSGD
from extrap_kernels.distributed import PeriodicBaseAverager, average_base
from extrap_kernels.distributed.zero import ExtrapZeroRedundancyOptimizer


def net():
    torch.manual_seed(0)
    model = Net()
    del model.never
    return model


def zero_beside_whole(rule, options, backend, kind, steps=4):
    """ZeRO, and one optimizer with the same averaged gradients: they must keep the same bits in both modes."""
    model, alone = net(), net()
    wrapped = DistributedDataParallel(model)
    optimizer_type = RULES[rule].optimizer
    zero_type = ExtrapZeroRedundancyOptimizer if kind == "ours" else ZeroRedundancyOptimizer
    make = {"lr": 0.1, "backend": backend, **options}
    zero = zero_type(model.parameters(), optimizer_type, **make)
    whole = optimizer_type(alone.parameters(), **make)

    def step(t):
        zero.zero_grad()
        loss_of(wrapped, t, dist.get_rank()).backward()
        for p, q in zip(alone.parameters(), model.parameters()):
            p.grad = q.grad.clone()
        zero.step()
        whole.step()
        assert_same_bits(list(model.parameters()), list(alone.parameters()))

    for t in range(steps):
        step(t)
    assert 0 < len(zero.optim.state) < len(whole.state)
    if kind == "ours":
        assert options.get("max_grad_norm") is None or abs(zero.grad_norm / whole.grad_norm - 1) < 1e-12
        with zero.base_parameters(), whole.base_parameters():
            assert_same_bits(list(model.parameters()), list(alone.parameters()))
        assert_same_bits(list(model.parameters()), list(alone.parameters()))
        zero.eval()
        zero.consolidate_state_dict(0)
        saved = [zero.state_dict()] if dist.get_rank() == 0 else [None]
        dist.broadcast_object_list(saved)
        zero = zero_type(model.parameters(), optimizer_type, **make)
        zero.load_state_dict(saved[0])
        zero.train()
        assert_same_bits(list(model.parameters()), list(alone.parameters()))
        step(steps)


def zero_in_24_bits(backend, steps=3):
    """State dicts of ZeRO have both tensors of a base iterate: a run that goes on from one ends with the same bits."""
    runs = []
    for resumes in (False, True):
        params = list(net().to(torch.bfloat16).parameters())
        make = {"lr": 0.1, "state_dtype": torch.bfloat16, "backend": backend}
        zero = ExtrapZeroRedundancyOptimizer(params, ExtrapSGD, **make)
        for t in range(steps):
            if resumes and t == steps - 1:
                zero.consolidate_state_dict(0)
                saved = [zero.state_dict()] if dist.get_rank() == 0 else [None]
                dist.broadcast_object_list(saved)
                zero = ExtrapZeroRedundancyOptimizer(params, ExtrapSGD, **make)
                zero.load_state_dict(saved[0])
            set_gradients(params, t)
            zero.step()
        states = [zero.optim.state[param] for group in zero.optim.param_groups for param in group["params"]]
        assert states and all(state["base_low"].any() for state in states)
        runs.append([copies(params), [dict(state) for state in states]])
    assert_same_bits(*runs)
    return runs[0][0]


def post_local(backend, period=3, warmup=2, steps=9):
    """Workers that step by themselves and average now and then. Base iterate and parameters after each step."""
    model = net()
    optimizer = ExtrapSGD(model.parameters(), lr=0.1, momentum=0.9, backend=backend)
    local = PostLocalSGDOptimizer(optimizer, PeriodicBaseAverager(optimizer, period, warmup))
    undisturbed = copy.deepcopy(model)
    alone = ExtrapSGD(undisturbed.parameters(), lr=0.1, momentum=0.9, backend=backend)
    history = []
    for t in range(steps):
        local.zero_grad()
        loss_of(model, t, dist.get_rank()).backward()
        # The same step without the averager, from the same state.
        alone.load_state_dict(optimizer.state_dict())
        for p, q in zip(undisturbed.parameters(), model.parameters()):
            p.data.copy_(q.data)
            p.grad = q.grad.clone()
        addresses = [p.data_ptr() for p in model.parameters()]
        local.step()
        alone.step()
        assert [p.data_ptr() for p in model.parameters()] == addresses
        history.append([bases_and_points(alone, undisturbed), bases_and_points(optimizer, model)])
    saved = local.state_dict()
    again = PostLocalSGDOptimizer(alone, PeriodicBaseAverager(alone, period, warmup))
    again.load_state_dict(saved)
    assert again.averager.step == steps
    assert_same_bits(again.state_dict()["state"], saved["state"])
    optimizer.eval()
    average_base(optimizer)
    in_eval = copies(model.parameters())
    optimizer.train()
    average_base(optimizer)
    return history, in_eval, bases_and_points(optimizer, model)


def bases_and_points(optimizer, model):
    return [optimizer.base_of(p).clone() for p in model.parameters()], copies(model.parameters())


def zero_refusals():
    model = net()
    messages = []
    for kind, options in (
        (torch.optim.SGD, {}),
        (ExtrapSGD, {"extrapolation": "extragradient"}),
        (ExtrapSGD, {"overlap_with_ddp": True}),
    ):
        try:
            ExtrapZeroRedundancyOptimizer(model.parameters(), kind, lr=0.1, **options)
        except (TypeError, ValueError) as error:
            messages.append(str(error))
    return messages
