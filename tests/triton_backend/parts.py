"""Tensors cut into parts as several processes hold them, stepped in one process."""

import itertools

import torch
from extrap_kernels.backends.member import Member
from extrap_kernels.backends.scaling import Scaling

from extrap_kernels.shards import Shard, _runs

UNSCALED = Scaling(1.0, 1.0, None)


def shard_of(whole, cut):
    """Where the part `whole[cut]` lies."""
    parts = 2 if whole.is_complex() else 1
    starts = [span.indices(size)[0] for span, size in zip(cut, whole.shape)]
    offset, run, pitch = (parts * n for n in _runs(whole.shape, whole[cut].shape, starts))
    return Shard(offset, run, pitch, parts * whole.numel(), whole.shape[0], (), ())


def member_of(values, index, shard, state_names):
    """A parameter with these values before its first step."""
    param = values.detach().clone(memory_format=torch.contiguous_format)
    base = param.to(torch.promote_types(param.dtype, torch.float32), copy=True)
    state = {name: torch.zeros_like(base) for name in state_names}
    state |= {"base": base, "step": torch.zeros((), device=param.device)}
    return Member(param, state, index, shard)


class Part:
    """What one process holds of the parameters of an optimizer, in a state of its own.

    rows, columns: the slice of dim 0 and of dim 1, as functions of the size; a vector is with the first columns.
    """

    def __init__(self, executor, optimizer, rows, columns, like_param=True):
        wholes = optimizer.param_groups[0]["params"]
        state_names = optimizer.rule.state_names(optimizer.param_groups[0])
        self.cuts = [self._cut(whole, rows, columns) for whole in wholes]
        self.members = [
            member_of(whole[cut], i, shard_of(whole, cut), state_names)
            for i, (whole, cut) in enumerate(zip(wholes, self.cuts))
        ]
        self.executor = executor(optimizer.rule_name, state_names, self.members, like_param)

    @staticmethod
    def _cut(whole, rows, columns):
        if whole.dim() > 1:
            return rows(whole.shape[0]), columns(whole.shape[1])
        return (rows(whole.shape[0]) if columns(3).start == 0 else slice(0, 0),)

    def take_gradients(self, wholes):
        for member, whole, cut in zip(self.members, wholes, self.cuts):
            member.param.grad = whole.grad[cut].contiguous()
        assert self.executor.refresh({})


def step_parts(grid, optimizer, *, correct=True):
    """Step the parts in `grid`, the parts of the same rows in one line of it, as their processes would together."""
    group, parts = optimizer.param_groups[0], list(itertools.chain(*grid))
    for part in parts:
        part.take_gradients(group["params"])
    with torch.no_grad():
        sums = {part: part.executor.square_sums(group, correct=correct, scaling=UNSCALED) for part in parts}
        of_tensors = 2 * len(parts[0].members) if hasattr(optimizer.rule, "trust_ratio") else 0
        lines = grid if group["noise_scale"] == "filter" else [parts]
        for line, span in [(parts, slice(of_tensors))] + [(line, slice(of_tensors, None)) for line in lines]:
            total = sum(sums[part][span] for part in line)
            for part in line:
                sums[part][span] = total
        for part in parts:
            part.executor.run(group, key=group["seed"], correct=correct, scaling=UNSCALED)
