"""What each process does in test_sharded.py: the same steps on sharded parameters and, by itself, on whole ones."""

from unittest import mock

import torch
from helpers import RULES, assert_same_bits, random_like
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

SHAPES = ((7, 33), (5,), (3, 5), (4, 6, 5, 2), (1, 40), (6, 1031), (33, 70), (2,), (70, 64))
MESHES = {}


def mesh_of(*shape):
    if shape not in MESHES:
        MESHES[shape] = init_device_mesh("cpu", shape, mesh_dim_names=("outer", "inner")[-len(shape) :])
    return MESHES[shape]


# How a parameter is spread over four processes: the shape of the mesh and what each of its dimensions shards, where the
# parameter has that dimension; None is a replica.
SPREADS = {
    "rows": ((4,), (0,)),
    "columns": ((4,), (1,)),
    "third dimension": ((4,), (2,)),
    "replicas": ((4,), (None,)),
    "rows twice": ((2, 2), (0, 0)),
    "rows and columns": ((2, 2), (0, 1)),
    "columns and rows": ((2, 2), (1, 0)),
    "replicas of rows": ((2, 2), (None, 0)),
}


def placements_for(param, dims):
    return [Replicate() if d is None else Shard(d if d < param.dim() else 0) for d in dims]


def assert_whole(state, expected, param):
    """The tensors of a sharded state lie as the parameter does, and are those of the whole one."""
    assert state.keys() == expected.keys()
    for name, value in state.items():
        is_sharded = name not in ("step", "inner_lr")
        assert isinstance(value, DTensor) == is_sharded
        if is_sharded:
            assert value.placements == param.placements and value.device_mesh == param.device_mesh
        assert_same_bits(value.full_tensor() if is_sharded else value, expected[name])


def all_reduces(rule, options, backend):
    """How many a step of parameters in four shards takes."""
    mesh = mesh_of(4)
    params = [torch.nn.Parameter(distribute_tensor(torch.ones(s), mesh, [Shard(0)])) for s in SHAPES]
    optimizer = RULES[rule].optimizer(params, lr=0.1, backend=backend, **options)
    counts = []
    for _ in range(2):
        for p in params:
            p.grad = distribute_tensor(torch.ones(p.shape), mesh, p.placements)
        with mock.patch.object(torch.distributed, "all_reduce", wraps=torch.distributed.all_reduce) as all_reduce:
            optimizer.step()
        counts.append(all_reduce.call_count)
    return counts


def step_both(rule, options, spread, dtype, backend, steps=2):
    """Random gradients; both optimizers must keep the same bits. Returns the number of empty shards here."""
    shape, dims = SPREADS[spread]
    mesh = mesh_of(*shape)
    torch.manual_seed(0)
    whole = [torch.nn.Parameter(torch.randn(s).to(dtype)) for s in SHAPES]
    spread_out = [
        torch.nn.Parameter(distribute_tensor(p.detach().clone(), mesh, placements_for(p, dims))) for p in whole
    ]
    kind = RULES[rule].optimizer
    make = {"lr": 0.1, "backend": backend, "seed": 2**63 + 11, **options}
    alone, together = kind(whole, **make), kind(spread_out, **make)
    alone.rank = 0
    for t in range(steps):
        halves = 2 if options.get("extrapolation") == "extragradient" else 1
        for half in range(halves):
            for k, (p, q) in enumerate(zip(whole, spread_out)):
                p.grad = random_like(p, 100 * (halves * t + half) + k)
                q.grad = distribute_tensor(p.grad, mesh, q.placements)
            for optimizer in (alone, together):
                optimizer.step() if half == halves - 1 else optimizer.extrapolate()
            assert_same_bits([q.full_tensor() for q in spread_out], whole)
    exported, expected = (o.float32_state_dict()["state"] for o in (together, alone))
    for k, (p, q) in enumerate(zip(whole, spread_out)):
        assert_whole(together.state[q], alone.state[p], q)
        assert_whole(exported[k], expected[k], q)
        assert q.grad is not None
    assert alone.grad_norm == together.grad_norm or abs(alone.grad_norm / together.grad_norm - 1) < 1e-12
    return sum(q.to_local().numel() == 0 for q in spread_out)
