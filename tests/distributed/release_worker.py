"""What each process does in test_release_of_gradients.py."""

import torch
import torch.distributed as dist
from helpers import RULES, assert_same_bits, snapshot
from model_worker import Net, loss_of, spread
from torch.nn.parallel import DistributedDataParallel

from extrap_kernels import param_groups, release_gradients
from extrap_kernels.distributed import register_local_gradient_hook


def build(engine, rule, backend, options, ddp):
    torch.manual_seed(0)
    model = Net()
    if engine == "ddp":
        model = DistributedDataParallel(model, bucket_cap_mb=0.0003, **ddp)
    else:
        model = spread(model, engine)
    groups = param_groups(model, weight_decay=0.1)
    return model, RULES[rule].optimizer(groups, lr=0.1, backend=backend, **options)


def passes(model, engine, accumulate, t):
    """Backward passes of a step; the engine reduces the gradients in the last one only, which defers the release."""
    for k in range(accumulate):
        last = k == accumulate - 1
        if engine == "ddp" and not last:
            with model.no_sync():
                loss_of(model, 10 * t + k, dist.get_rank()).backward()
            continue
        if engine != "ddp":
            model.set_requires_gradient_sync(last)
        loss_of(model, 10 * t + k, dist.get_rank()).backward()


def train_beside_plain(engine, rule, backend, options, ddp=None, accumulate=1):
    """Train with and without release: the same bits. Returns how many parameters were stepped before step()."""
    runs = [build(engine, rule, backend, options, ddp or {}) for _ in range(2)]
    releases = [None, release_gradients(*runs[1], bucket_mb=1e-4)]
    for t in range(4):
        for (model, optimizer), release in zip(runs, releases):
            passes(model, engine, accumulate, t)
            if release is not None:
                early = len(release._stepped)
                if engine != "ddp":
                    assert all(p.grad is None for p in model.parameters())
            optimizer.step()
            optimizer.zero_grad()
        assert_same_bits(*(snapshot(optimizer) for _, optimizer in runs))
    releases[1].remove()
    loss_of(runs[1][0], 5, dist.get_rank()).backward()
    assert all(p.grad is not None for p in runs[1][0].parameters())
    return early, len(list(runs[0][0].parameters()))


def _error(call):
    try:
        call()
    except (RuntimeError, ValueError) as error:
        return str(error)
    return ""


def refusals():
    """The messages of what DDP cannot do."""
    messages = []
    for ddp in ({"find_unused_parameters": True}, {"static_graph": True}):
        model, optimizer = build("ddp", "sgd", "reference", {}, ddp)
        messages.append(_error(lambda m=model, o=optimizer: release_gradients(m, o)))
    model, optimizer = build("ddp", "sgd", "reference", {}, {})
    register_local_gradient_hook(model, optimizer)
    messages.append(_error(lambda: release_gradients(model, optimizer)))
    model, optimizer = build("ddp", "sgd", "reference", {}, {})
    release_gradients(model, optimizer)
    loss_of(model, 0).backward()
    messages.append(_error(lambda: loss_of(model, 0).backward()))
    return messages
