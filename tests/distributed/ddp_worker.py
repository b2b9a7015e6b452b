"""What each process does in test_ddp.py."""

import copy
from contextlib import nullcontext
from unittest import mock

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.distributed.algorithms.join import Join
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

from extrap_kernels import ExtrapSGD
from extrap_kernels.distributed import register_local_gradient_hook

SGD = {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}


class Net(torch.nn.Module):
    """Parameters in several memory layouts and, if asked for, dtypes; `spare` is for some workers, `never` for none."""

    def __init__(self, narrow=torch.float32):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)
        self.hidden = torch.nn.Linear(45, 33).to(narrow)
        self.transposed = torch.nn.Parameter(torch.randn(33, 21).t() / 8)
        self.head = torch.nn.Linear(21, 4)
        self.spare = torch.nn.Linear(21, 4)
        self.never = torch.nn.Linear(2, 2)

    def forward(self, images, use_spare=True):
        hidden = self.conv(images).flatten(1).relu().to(self.hidden.weight.dtype)
        hidden = torch.nn.functional.linear(self.hidden(hidden).float().relu(), self.transposed).relu()
        return self.head(hidden) + (self.spare(hidden) if use_spare else 0)


def batch(*seed):
    generator = torch.Generator().manual_seed(sum(part * 1000**k for k, part in enumerate(seed)))
    return torch.randn(6, 3, 5, 5, generator=generator), torch.randint(4, (6,), generator=generator)


def loss_of(model, *seed, **options):
    images, labels = batch(*seed)
    return torch.nn.functional.cross_entropy(model(images, **options), labels)


def base_hook(name):
    """A hook and its state; None is DDP's own all-reduce."""
    return {
        None: (None, None),
        "fp16": (default_hooks.fp16_compress_hook, None),
        "bf16": (default_hooks.bf16_compress_hook, None),
        "powerSGD": (
            powerSGD_hook.powerSGD_hook,
            powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=2, start_powerSGD_iter=3),
        ),
    }[name]


def build(backend, hook=None, ddp=None, all_used=True, narrow=torch.float32, **options):
    torch.manual_seed(0)
    model = Net(narrow)
    if all_used:
        del model.never
    # Buckets of a kilobyte, so that there are several; but PowerSGD waits inside gloo's few threads, once per bucket.
    megabytes = 25 if hook == "powerSGD" else 0.001
    wrapped = DistributedDataParallel(model, bucket_cap_mb=megabytes, **(ddp or {}))
    optimizer = ExtrapSGD(model.parameters(), backend=backend, **{**SGD, **options})
    return model, wrapped, optimizer, register_local_gradient_hook(wrapped, optimizer, *base_hook(hook))


def gradients_without_ddp(model, losses):
    """Gradients of a copy of the model, which DDP knows nothing of."""
    plain = copy.deepcopy(model)
    for p in plain.parameters():
        p.grad = None
    for loss in losses:
        loss(plain).backward()
    return [None if p.grad is None else p.grad.clone() for p in plain.parameters()]


def train(steps, *, accumulate=1, backward_per_step=1, unused=False, **how):
    """Train; return what came into each step and the end of the run, and compare each captured gradient on the way.

    `accumulate` batches count as one, all but the last under no_sync(); of `backward_per_step` gradients all but the
    last are thrown away.
    """
    rank = dist.get_rank()
    model, wrapped, optimizer, captured = build(all_used=not unused, **how)
    params = list(model.parameters())
    record = {"start": copies(params), "averaged": [], "local": []}
    options = {"use_spare": rank == 1} if unused else {}
    for t in range(steps):
        for attempt in range(backward_per_step):
            optimizer.zero_grad()
            seeds = [(t, attempt, k, rank) for k in range(accumulate)]
            expected = gradients_without_ddp(model, [lambda m, s=s: loss_of(m, *s, **options) for s in seeds])
            for k, seed in enumerate(seeds):
                with wrapped.no_sync() if k < accumulate - 1 else nullcontext():
                    loss_of(wrapped, *seed, **options).backward()
        for p, l in zip(params, expected):
            assert torch.equal(optimizer.local_gradients[p], torch.zeros_like(p) if l is None else l)
            assert l is not None or unused
        assert all(l.data_ptr() % 16 == 0 for l in optimizer.local_gradients.values())
        record["averaged"].append(copies([p.grad for p in params]))
        record["local"].append(copies([optimizer.local_gradients[p] for p in params]))
        optimizer.step()
        assert not optimizer.local_gradients
    assert captured.nbytes == sum(-(-p.nbytes // 16) * 16 for p in params)
    record["y"] = copies(params)
    record["base"] = [optimizer.base_of(p).clone() if p in optimizer.state else None for p in params]
    return record


def ascend(backend, steps=3, rho=0.2):
    """m-SAM: up along the own gradient by its own norm, for which nothing is communicated. Returns the weights."""
    options = {"extrapolation": "extragradient", "extrap_norm": "global", "extrap_lr": -rho, "weight_decay": 0.0}
    model, wrapped, optimizer, _ = build(backend, **options)
    params = list(model.parameters())
    for t in range(steps):
        before = copies(params)
        own = gradients_without_ddp(model, [lambda m, t=t: loss_of(m, t, dist.get_rank())])
        for half in (optimizer.extrapolate, optimizer.step):
            optimizer.zero_grad()
            loss_of(wrapped, t, dist.get_rank()).backward()
            with mock.patch.object(dist, "all_reduce", side_effect=AssertionError("it communicates")):
                half()
            if half == optimizer.extrapolate:
                norm = sum(float(l.double().square().sum()) for l in own) ** 0.5
                for p, x, l in zip(params, before, own):
                    torch.testing.assert_close(p.detach(), x + l * (rho / norm), rtol=1e-5, atol=1e-6)
    return copies(params)


def copies(tensors):
    return [None if t is None else t.detach().clone() for t in tensors]


def train_scaled(backend, *, scaled, explicit):
    """Seven steps, the third of which has infinite gradients on rank 1; without a scaler it is left out by hand."""
    model, wrapped, optimizer, captured = build(backend)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2, enabled=scaled)
    for t in range(7):
        optimizer.zero_grad()
        overflow = t == 2
        if overflow and not scaled:
            continue
        factor = float("inf") if overflow and dist.get_rank() == 1 else 1.0
        scaler.scale(loss_of(wrapped, t, dist.get_rank()) * factor).backward()
        if explicit:
            scaler.unscale_(optimizer)
            captured.unscale_(scaler)
        before = copies(model.parameters())
        scaler.step(optimizer)
        scaler.update()
        if overflow:
            assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before))
            assert not optimizer.local_gradients
    return state_of(model, optimizer)


def unscale_averaged_only(backend):
    model, wrapped, optimizer, _ = build(backend)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(loss_of(wrapped, dist.get_rank())).backward()
    scaler.unscale_(optimizer)
    before = copies(model.parameters())
    try:
        scaler.step(optimizer)
    except RuntimeError as error:
        assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before)) and not optimizer.state
        return str(error)


def state_of(model, optimizer):
    return {
        "y": copies(model.parameters()),
        "state": [{name: t.clone() for name, t in optimizer.state[p].items()} for p in model.parameters()],
    }


def train_unevenly(backend):
    """Rank 0 has two batches, rank 1 five; then both have two more. The state after each phase."""
    model, wrapped, optimizer, captured = build(backend)
    rank = dist.get_rank()
    with Join([wrapped, captured]):
        for t in range(2 if rank == 0 else 5):
            optimizer.zero_grad()
            loss_of(wrapped, t, rank).backward()
            optimizer.step()
    after_join = state_of(model, optimizer)
    assert not optimizer.local_gradients
    for t in range(2):
        optimizer.zero_grad()
        loss_of(wrapped, t, rank).backward()
        optimizer.step()
    return after_join, state_of(model, optimizer)


def train_by_closure(backend, steps):
    """Extragradient: both halves of a step along each worker's own gradient. The base iterate, and y in between."""
    model, wrapped, optimizer, _ = build(backend, extrapolation="extragradient")
    rank, middles = dist.get_rank(), []

    def closure():
        middles.append(copies(model.parameters()))
        optimizer.zero_grad()
        loss = loss_of(wrapped, len(middles), rank)
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    return {"end": copies(model.parameters()), "middle": middles[1::2]}


def refusals():
    model = Net()
    del model.never
    wrapped = DistributedDataParallel(model)
    zero = ZeroRedundancyOptimizer(model.parameters(), ExtrapSGD, lr=0.1)
    messages = []
    for arguments in ((model, ExtrapSGD(model.parameters())), (wrapped, zero)):
        try:
            register_local_gradient_hook(*arguments)
        except TypeError as error:
            messages.append(str(error))
    return messages
