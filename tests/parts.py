"""Tensors cut into parts as several processes hold them, stepped in one process."""

import itertools

import helpers
import torch

from extrap_kernels import options
from extrap_kernels.backends.param_entry import ParamEntry
from extrap_kernels.launch import Launch, Phase
from extrap_kernels.shards import Shard, _extents
from extrap_kernels.state.layout import StateLayout


def launch_of(group, executor, phase=Phase.UPDATE):
    """The launch of a step whose gradients are taken as they are."""
    device = executor.device if executor.on_device else None
    return Launch.of(group, options.scalars_of(group), phase=phase, device=device)


def shard_of(whole, cut):
    """Where the part `whole[cut]` lies."""
    parts = 2 if whole.is_complex() else 1
    starts = [span.indices(size)[0] for span, size in zip(cut, whole.shape)]
    offset, extent, stride = (parts * n for n in _extents(whole.shape, whole[cut].shape, starts))
    return Shard(offset, extent, stride, parts * whole.numel(), whole.shape[0], (), ())


def entry_of(values, index, shard, layout):
    """A parameter with these values before its first step, and its state."""
    param = values.detach().clone(memory_format=torch.contiguous_format)
    entry = ParamEntry(param, index, f"parameter {index}", shard)
    layout.prepare(state := {}, param, param.device)
    return entry, state


class Part:
    """What one process holds of the parameters of an optimizer, in a state of its own.

    rows, columns: the slice of dim 0 and of dim 1, as functions of the size; a vector is with the first columns.
    """

    def __init__(self, executor, optimizer, rows, columns, grad_dtype=None):
        group = optimizer.param_groups[0]
        wholes, spec = group["params"], optimizer.rule.SPEC
        layout = StateLayout.of_param(spec, group, wholes[0])
        self.cuts = [self._cut(whole, rows, columns) for whole in wholes]
        pairs = [
            entry_of(whole[cut], i, shard_of(whole, cut), layout)
            for i, (whole, cut) in enumerate(zip(wholes, self.cuts))
        ]
        self.entries, self.states = map(list, zip(*pairs))
        self.executor = executor(spec, layout, self.entries, grad_dtype or wholes[0].dtype)

    @staticmethod
    def _cut(whole, rows, columns):
        if whole.dim() > 1:
            return rows(whole.shape[0]), columns(whole.shape[1])
        return (rows(whole.shape[0]) if columns(3).start == 0 else slice(0, 0),)

    def take_gradients(self, wholes):
        for entry, whole, cut in zip(self.entries, wholes, self.cuts):
            entry.param.grad = whole.grad[cut].contiguous()
        assert self.executor.bind(self.states, {}) == []


def step_parts(grid, optimizer, *, phase=Phase.UPDATE):
    """Step the parts in `grid`, the parts of the same rows in one line of it, as their processes would together."""
    group, parts = optimizer.param_groups[0], list(itertools.chain(*grid))
    for part in parts:
        part.take_gradients(group["params"])
    launch = launch_of(group, parts[0].executor, phase)
    with torch.no_grad():
        sums = {part: part.executor.square_sums(launch) for part in parts}
        of_tensors = 2 * len(parts[0].entries) if optimizer.rule.SPEC.norm is not None else 0
        lines = grid if group["noise_scale"] == "filter" else [parts]
        for line, span in [(parts, slice(of_tensors))] + [(line, slice(of_tensors, None)) for line in lines]:
            total = sum(sums[part][span] for part in line)
            for part in line:
                sums[part][span] = total
        for part in parts:
            part.executor.run(launch)


def stepped_like_parts(optimizer, executor, rows, columns):
    """Step an optimizer twice, and its parts, which are returned, with the same gradients."""
    wholes = optimizer.param_groups[0]["params"]
    grid = [[Part(executor, optimizer, r, c) for c in columns] for r in rows]
    for t in range(2):
        helpers.set_gradients(wholes, t)
        step_parts(grid, optimizer)
        optimizer.step()
    return itertools.chain(*grid)
