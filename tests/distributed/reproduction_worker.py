"""What each process does in test_reproduction_in_processes.py."""

import sys
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from extrap_kernels.distributed import average_base, register_local_gradient_hook

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from reproduction import splits, training


class Loss(torch.nn.Module):
    """DDP sees what passes through forward."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *examples):
        return self.model.loss(*examples)


class Worker(training.Workers):
    """One worker, whose gradients DDP averages with those of the other processes."""

    def __init__(self, trial, model, count):
        assert count == dist.get_world_size()
        super().__init__(trial, model, 1)
        (self.optimizer,) = self.optimizers
        self.ddp = DistributedDataParallel(Loss(model))
        register_local_gradient_hook(self.ddp, self.optimizer)

    def step(self, batch, lr_factor):
        super().step(tuple(column.chunk(dist.get_world_size())[dist.get_rank()] for column in batch), lr_factor)

    def average(self):
        average_base(self.optimizer)

    def _take_gradients(self, shares):
        (share,) = shares
        self.ddp.zero_grad()
        parts, count = list(splits.parts(share, training._TOGETHER)), self.models[0].count(*share)
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            with nullcontext() if last and not self.alone else self.ddp.no_sync():
                (self.ddp(*part) / count).backward()


def train(trial, folder):
    """The outcome of the training by all processes, and by workers that this one simulates."""
    with mock.patch.object(training, "Workers", Worker):
        real = training.train(trial, folder)
    return real, training.train(trial, folder)
