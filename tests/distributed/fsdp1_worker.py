"""What each process does in test_fsdp1.py: a small model under FullyShardedDataParallel."""

import warnings

import torch
from torch.distributed.fsdp import FullyShardedDataParallel

import extrap_kernels


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))


def sharded(name, original, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # FSDP1 is deprecated
        model = FullyShardedDataParallel(network(), use_orig_params=original, device_id=torch.device("cpu"))
    optimizer_type = getattr(extrap_kernels, name)
    return model, optimizer_type(model.parameters(), **{"lr": 0.1, "backend": "reference", **options})


def loss_of(model, t):
    return model(torch.randn(4, 4, generator=torch.Generator().manual_seed(t))).square().mean()


def step(model, optimizer, t):
    optimizer.zero_grad()
    loss_of(model, t).backward()
    optimizer.step()


def refusal(name, original, **options):
    model, optimizer = sharded(name, original, **options)
    try:
        step(model, optimizer, 0)
    except RuntimeError as error:
        return str(error)
    return ""


def final_losses(original, group=False, **options):
    """The loss at x after some steps, sharded and in one process, and the warnings of a change back to train mode."""
    model, optimizer = sharded("ExtrapSGD", original, momentum=0.9, **options)
    twin = network()
    alone = extrap_kernels.ExtrapSGD(twin.parameters(), lr=0.1, momentum=0.9, backend="reference", **options)
    if group:
        optimizer.gradient_norm_group = torch.distributed.group.WORLD
    for t in range(3):
        step(model, optimizer, t)
        step(twin, alone, t)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        optimizer.eval()
        alone.eval()
        with torch.no_grad():
            losses = [loss_of(each, 0).item() for each in (model, twin)]
        assert not seen
        optimizer.train()
    return losses, [str(warning.message) for warning in seen]
