"""A small model with every kind of parameter, its optimizers, and a loop: for what takes gradients in backward."""

import helpers
import torch
from torch import nn
from torch.nn import functional

from extrap_kernels import param_groups

SMALL = 0.004  # MiB: several buckets in the small model
RULES = {
    "sgd": {"momentum": 0.9, "nesterov": True, "noise": "uniform", "seed": 5},
    "adamw": {"weight_decay": 0.1, "state_dtype": torch.bfloat16},
    "lars": {"momentum": 0.9, "trust_coefficient": 0.3},
    "lamb": {"noise": "gaussian", "noise_scale": "filter"},
}


class Net(nn.Module):
    """A tied weight, a frozen one, one without a gradient in even steps, one without any, and one in bfloat16."""

    def __init__(self):
        super().__init__()
        self.tied = nn.Parameter(torch.randn(24, 17) / 4)
        self.blocks = nn.ModuleList(nn.Linear(24, 24) for _ in range(4))
        self.norm = nn.LayerNorm(24)
        self.frozen = nn.Linear(24, 24).requires_grad_(False)
        self.late = nn.Linear(24, 24)
        self.never = nn.Linear(3, 3)
        self.narrow = nn.Linear(17, 5, dtype=torch.bfloat16)

    def forward(self, inputs, t):
        hidden = functional.linear(inputs, self.tied)
        for block in self.blocks:
            hidden = self.norm(block(hidden).tanh())
        hidden = self.frozen(hidden) + (self.late(hidden) if t % 2 else 0)
        return self.narrow(functional.linear(hidden, self.tied.t()).bfloat16()).float()


def make(backend, rule="sgd", **options):
    torch.manual_seed(0)
    model = Net().to(helpers.DEVICES[backend])
    groups = param_groups(model, weight_decay=0.1)
    options = {"lr": 0.05, "backend": backend, **RULES[rule], **options}
    return model, helpers.RULES[rule].optimizer(groups, **options)


def loss_of(model, t):
    inputs = torch.randn(6, 17, generator=torch.Generator().manual_seed(t))
    return model(inputs.to(model.tied.device), t).square().mean()


def train(model, optimizer, steps, scheduler=None, passes=1):
    for t in steps:
        optimizer.zero_grad()
        for k in range(passes):
            loss_of(model, t + 10 * k).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
