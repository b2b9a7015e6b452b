"""What each process does in test_checkpoints.py."""

import os

import ddp_worker
import model_worker
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from helpers import RULES
from torch.distributed.checkpoint import DefaultLoadPlanner
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from extrap_kernels.distributed import WorkerPoints


def save(folder, model, optimizer, **more):
    state = {"model": get_model_state_dict(model), "optimizer": get_optimizer_state_dict(model, optimizer), **more}
    dcp.save(state, checkpoint_id=folder)


def load(folder, model, optimizer, *, evaluating):
    """Into a fresh model and optimizer, which must be in the mode that the checkpoint was taken in."""
    if evaluating:
        optimizer.eval()
    state = {"model": get_model_state_dict(model), "optimizer": get_optimizer_state_dict(model, optimizer)}
    dcp.load(state, checkpoint_id=folder)
    set_model_state_dict(model, state["model"])
    set_optimizer_state_dict(model, optimizer, state["optimizer"])
    optimizer.train()


def sharded_segment(
    first, last, *, source, target, evaluating, layout, rule, backend, options, width=8, dtype=torch.float32
):
    """Steps `first` to `last`, between two checkpoints; the whole parameters and base iterates after it."""
    torch.manual_seed(7 if source else 0)
    model = model_worker.spread(model_worker.Net(width).to(dtype), layout)
    optimizer = RULES[rule].optimizer(model.parameters(), lr=0.1, backend=backend, **options)
    if source:
        load(source, model, optimizer, evaluating=evaluating)
    for t in range(first, last):
        optimizer.zero_grad()
        # The same data everywhere: the mean over two or four processes is then exact.
        model_worker.loss_of(model, t).backward()
        optimizer.step()
    optimizer.zero_grad()
    if target:
        if evaluating:
            optimizer.eval()
        save(target, model, optimizer)
        optimizer.train()
    params = list(model.parameters())
    return [
        [model_worker.whole(p) for p in params],
        [model_worker.whole(value) for p in params for _, value in sorted(optimizer.state[p].items())],
    ]


def state_made_by_helpers(options, backend, evaluating):
    """get_optimizer_state_dict() on a fresh optimizer: which state it makes, and whether a parameter has moved."""
    torch.manual_seed(0)
    model = model_worker.spread(model_worker.Net(), "fsdp")
    optimizer = RULES["adamw"].optimizer(model.parameters(), lr=0.1, backend=backend, **options)
    if evaluating:
        optimizer.eval()
    before = [model_worker.whole(p) for p in model.parameters()]
    found = get_optimizer_state_dict(model, optimizer)["state"]
    after = [model_worker.whole(p) for p in model.parameters()]
    unmoved = all(torch.equal(a, b) for a, b in zip(before, after))
    moments = [float(model_worker.whole(v).abs().max()) for s in found.values() for k, v in s.items() if "exp" in k]
    base = all(
        torch.equal(model_worker.whole(found[name]["base"]), p) for (name, _), p in zip(model.named_parameters(), after)
    )
    return {
        "unmoved": unmoved and base and not any(moments),
        "names": {tuple(sorted(state)) for state in found.values()},
        "steps": {float(state["step"]) for state in found.values()},
    }


def full_state_dict_round_trip(backend):
    """A full state dict made by FSDP2 loads into one process without sharding, and back."""
    torch.manual_seed(0)
    model = model_worker.spread(model_worker.Net(), "fsdp")
    optimizer = RULES["sgd"].optimizer(model.parameters(), lr=0.1, momentum=0.9, backend=backend)
    model_worker.loss_of(model, 0).backward()
    optimizer.step()
    optimizer.zero_grad()
    full = StateDictOptions(full_state_dict=True)
    parts = get_model_state_dict(model, options=full), get_optimizer_state_dict(model, optimizer, options=full)
    alone = model_worker.Net()
    of_alone = RULES["sgd"].optimizer(alone.parameters(), lr=0.1, momentum=0.9, backend=backend)
    set_model_state_dict(alone, parts[0])
    set_optimizer_state_dict(alone, of_alone, parts[1])
    again = model_worker.spread(model_worker.Net(), "fsdp")
    of_again = RULES["sgd"].optimizer(again.parameters(), lr=0.1, momentum=0.9, backend=backend)
    set_model_state_dict(again, parts[0], options=full)
    set_optimizer_state_dict(again, of_again, parts[1], options=full)
    results = []
    for m, o in ((model, optimizer), (alone, of_alone), (again, of_again)):
        model_worker.loss_of(m, 1).backward()
        o.step()
        results.append([model_worker.whole(p) for p in m.parameters()])
    return results


def points_in_a_larger_job(folder, backend):
    """The point of each of four workers, of which two were saved."""
    model, wrapped, optimizer, _ = ddp_worker.build(backend)
    load(folder, model, optimizer, evaluating=False)
    dcp.load(
        {"points": WorkerPoints(optimizer)}, checkpoint_id=folder, planner=DefaultLoadPlanner(allow_partial_load=True)
    )
    return ddp_worker.copies(model.parameters())


def ddp_segment(first, last, *, source, target, evaluating, backend, die_at=None):
    """As sharded_segment, for data-parallel workers, each at a point of its own; rank 1 may die before a step."""
    model, wrapped, optimizer, _ = ddp_worker.build(backend, noise="uniform")
    if source:
        load(source, model, optimizer, evaluating=evaluating)
        dcp.load({"points": WorkerPoints(optimizer)}, checkpoint_id=source)
    for t in range(first, last):
        if t == die_at and dist.get_rank() == 1:
            os._exit(1)
        optimizer.zero_grad()
        ddp_worker.loss_of(wrapped, t, dist.get_rank()).backward()
        optimizer.step()
        if target and t == first + 1:
            optimizer.zero_grad()
            if evaluating:
                optimizer.eval()
            save(target, model, optimizer, points=WorkerPoints(optimizer))
            optimizer.train()
    return ddp_worker.state_of(model, optimizer)
