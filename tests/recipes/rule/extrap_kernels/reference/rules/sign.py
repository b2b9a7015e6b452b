"""A toy: sign-SGD in plain PyTorch."""

import torch

from extrap_kernels.rules import RuleSpec

SPEC = RuleSpec("sign")


def direction(group, step, g, l, x, buffers, trust):
    """Return ``u = gain * sign(g)`` and ``z``."""
    zero = torch.zeros_like(g)
    return torch.where(g > 0, zero + 1, torch.where(g < 0, zero - 1, zero)) * float(group["gain"]), l


def extragradient_direction(group, step, g, l, buffers, trust):
    """Return ``z``."""
    return l
