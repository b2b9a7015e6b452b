"""What each process does in test_sharded_models.py and test_checkpoints.py: a small model under FSDP2, HSDP and TP."""

import copy

import torch
import torch.distributed as dist
from helpers import RULES, assert_same_bits
from sharded_worker import mesh_of
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

LAYOUTS = ("fsdp", "fsdp by columns", "fsdp, bf16 compute", "hsdp", "tp", "fsdp and tp")


class Net(torch.nn.Module):
    """Three output rows: with four shards one of them is empty, with two they are uneven."""

    def __init__(self, width=8):
        super().__init__()
        self.first = torch.nn.Linear(12, width)
        self.norm = torch.nn.LayerNorm(width)
        self.second = torch.nn.Linear(width, width)
        self.third = torch.nn.Linear(width, 3)

    def forward(self, inputs):
        return self.third(self.second(self.norm(self.first(inputs))).relu())


def spread(model, layout):
    """Apply a layout to the model, in place; returns it."""
    if layout in ("tp", "fsdp and tp"):
        mesh = mesh_of(dist.get_world_size()) if layout == "tp" else mesh_of(2, 2)["inner"]
        plan = {"first": ColwiseParallel(output_layouts=None), "second": ColwiseParallel(), "third": RowwiseParallel()}
        plan["first"] = ColwiseParallel(output_layouts=plan["third"].output_layouts[0])
        parallelize_module(model, mesh, plan)
        if layout == "tp":
            return model
    options = {"mesh": mesh_of(2, 2) if layout == "hsdp" else mesh_of(dist.get_world_size())}
    if layout == "fsdp and tp":
        options["mesh"] = mesh_of(2, 2)["outer"]
    if layout == "fsdp by columns":
        options["shard_placement_fn"] = lambda p: Shard(1) if p.dim() == 2 else None
    if layout == "fsdp, bf16 compute":
        options["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for layer in (model.first, model.second, model.third):
        fully_shard(layer, **options)
    return fully_shard(model, **options)


def loss_of(model, t, share=None):
    """Cross-entropy of step `t` on all of its batch or on the `share`-th of four parts."""
    generator = torch.Generator().manual_seed(t)
    inputs, labels = torch.randn(16, 12, generator=generator), torch.randint(3, (16,), generator=generator)
    part = slice(None) if share is None else slice(4 * share, 4 * share + 4)
    inputs = inputs.to(next(model.parameters()).dtype)
    return torch.nn.functional.cross_entropy(model(inputs[part]).float(), labels[part])


def whole(tensor):
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def train_beside_whole(layout, rule, options, backend, steps=3):
    """Step a spread model, and by itself the whole one with the same gradients: they must keep the same bits.

    Returns what every process must hold alike: the whole parameters.
    """
    torch.manual_seed(0)
    plain = Net()
    model = spread(copy.deepcopy(plain), layout)
    make = {"lr": 0.1, "backend": backend, **options}
    together, alone = (RULES[rule].optimizer(m.parameters(), **make) for m in (model, plain))
    alone.rank = 0
    tolerance = 2e-2 if "bf16" in layout else 1e-5
    for t in range(steps):
        together.zero_grad()
        # Under tensor parallelism all processes see the same data, in pairs where that is combined with FSDP.
        share = {"tp": None, "fsdp and tp": None}.get(layout, dist.get_rank())
        loss_of(model, t, share).backward()
        plain.zero_grad()
        loss_of(plain, t).backward()
        for p, q in zip(plain.parameters(), model.parameters()):
            torch.testing.assert_close(whole(q.grad), p.grad, rtol=tolerance, atol=tolerance)
            p.grad = whole(q.grad)
        for optimizer in (together, alone):
            optimizer.step()
        held = [whole(p) for p in model.parameters()]
        assert_same_bits(held, list(plain.parameters()))
    for optimizer in (together, alone):
        optimizer.eval()
    assert_same_bits([whole(p) for p in model.parameters()], list(plain.parameters()))
    together.train()
    assert_same_bits([whole(p) for p in model.parameters()], held)
    return held


def evaluate_between_steps(layout, backend):
    """FSDP2's root keeps what it has gathered for an evaluation: the next gradient must not be taken there."""
    torch.manual_seed(0)
    plain = Net()
    models = (spread(copy.deepcopy(plain), layout), plain)
    pair = [(model, RULES["sgd"].optimizer(model.parameters(), lr=0.5, backend=backend)) for model in models]
    seen = []
    for t in range(2):
        losses = []
        for model, optimizer in pair:
            optimizer.zero_grad()
            losses.append(loss_of(model, t))
            losses[-1].backward()
            optimizer.step()
            with optimizer.base_parameters(), torch.no_grad():
                losses.append(loss_of(model, t))
            with torch.no_grad():
                losses.append(loss_of(model, t))
        seen.append([loss.item() for loss in losses])
    return seen


def skip_overflow(layout, backend):
    """An overflow on one process is a skipped step on all. The step counts, and the scale after it."""
    torch.manual_seed(0)
    model = spread(Net(), layout)
    optimizer = RULES["sgd"].optimizer(model.parameters(), lr=0.1, backend=backend)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for t in range(3):
        optimizer.zero_grad()
        factor = float("inf") if t == 1 and dist.get_rank() == 0 else 1.0
        scaler.scale(loss_of(model, t, dist.get_rank()) * factor).backward()
        before = [whole(p) for p in model.parameters()]
        scaler.step(optimizer)
        scaler.update()
        after = [whole(p) for p in model.parameters()]
        assert all(torch.equal(a, b) == (t == 1) for a, b in zip(before, after))
    return [float(optimizer.state[p]["step"]) for p in model.parameters()], scaler.get_scale()


def local_gradient(layout, backend):
    """The error for a local gradient of a sharded parameter; nothing has changed then."""
    torch.manual_seed(0)
    model = spread(Net(), layout)
    optimizer = RULES["sgd"].optimizer(model.parameters(), lr=0.1, backend=backend)
    loss_of(model, 0).backward()
    before = [whole(p) for p in model.parameters()]
    sharded = next(p for p in model.parameters() if isinstance(p, DTensor))
    optimizer.local_gradients[sharded] = sharded.grad
    try:
        optimizer.step()
    except ValueError as error:
        assert_same_bits([whole(p) for p in model.parameters()], before)
        return str(error)
