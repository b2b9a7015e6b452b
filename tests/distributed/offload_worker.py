"""What each process does in test_offload_in_processes.py."""

import torch.distributed as dist
from helpers import assert_same_bits, snapshot
from late_link import LateLink
from model_worker import loss_of
from release_worker import _error, build, passes

from extrap_kernels.distributed import register_local_gradient_hook
from extrap_kernels.offload import offload_over


def train_beside_plain(rule, options, ddp, accumulate):
    """Train with and without offload: the same bits. Returns the log of the copies of one step."""
    runs = [build("ddp", rule, "cpu", options, ddp) for _ in range(2)]
    link = LateLink()
    link.watch(runs[1][0])
    offload_over(link, *runs[1], bucket_mb=1e-4)
    for t in range(3):
        for model, optimizer in runs:
            link.log.clear()
            passes(model, "ddp", accumulate, t)
            optimizer.step()
            optimizer.zero_grad()
        link.compute()
        assert_same_bits(*(snapshot(optimizer) for _, optimizer in runs))
        assert_same_bits(*(list(model.parameters()) for model, _ in runs))
    return link.log


def refusals():
    """What is said of FSDP2's parameters, and of gradients that DDP's hook has kept on the accelerator."""
    model, optimizer = build("fsdp", "sgd", "cpu", {}, {})
    return _error(lambda: offload_over(LateLink(), model, optimizer)), _error(_step_with_local_gradients)


def _step_with_local_gradients():
    model, optimizer = build("ddp", "sgd", "cpu", {}, {})
    register_local_gradient_hook(model, optimizer)
    offload_over(LateLink(), model, optimizer)
    loss_of(model, 0, dist.get_rank()).backward()
    optimizer.step()
