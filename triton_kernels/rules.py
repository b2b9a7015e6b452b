"""The list of rules: a new one is a file with its functions, and a branch in each of the functions here.

``RULE`` and ``BUFFERS`` are as in :data:`RULES`: a rule's name, and whether it has no buffer, one (``m``) or two (``m``
and ``v``).
"""

from __future__ import annotations

import triton
import triton.language as tl
from extrap_kernels.triton_kernels.adam import adam_constants, adam_direction, adam_extragradient_direction
from extrap_kernels.triton_kernels.lamb import lamb_direction, lamb_trust_ratio
from extrap_kernels.triton_kernels.lars import lars_direction, lars_trust_ratio
from extrap_kernels.triton_kernels.sgd import sgd_constants, sgd_direction

# A rule's name and the number of its buffers.
RULES = (("sgd", 0), ("sgd", 1), ("adam", 2), ("lars", 0), ("lars", 1), ("lamb", 2))
# Those that scale by the norms of each tensor.
RULES_WITH_NORMS = ("lars", "lamb")
# Those that do the weight decay themselves.
RULES_WITH_DECAY = ("lamb",)


@triton.jit
def rule_constants(options, count, trust, RULE: tl.constexpr, A: tl.constexpr):
    """Return the rule's constants in the precision ``A`` for the step that makes the step count ``count``."""
    if RULE == "sgd" or RULE == "lars":
        return sgd_constants(options, count, trust, A)
    else:
        return adam_constants(options, count, trust, A)


@triton.jit
def trust_ratio(options, norm_x, norm, RULE: tl.constexpr):
    """Return the float64 factor that fits the step to the norm of the tensor."""
    if RULE == "lars":
        return lars_trust_ratio(options, norm_x, norm)
    else:
        return lamb_trust_ratio(norm_x, norm)


@triton.jit
def direction(rule, g, l, x, m, v, RULE: tl.constexpr, BUFFERS: tl.constexpr):
    """Return the update ``u``, the extrapolation direction ``z`` and the advanced buffers."""
    if RULE == "sgd":
        u, z, m = sgd_direction(rule, g, l, m, BUFFERS == 1)
    elif RULE == "lars":
        u, z, m = lars_direction(rule, g, l, m, BUFFERS == 1)
    elif RULE == "adam":
        u, z, m, v = adam_direction(rule, g, l, m, v)
    else:
        u, z, m, v = lamb_direction(rule, g, l, x, m, v)
    return u, z, m, v


@triton.jit
def extragradient_direction(rule, g, l, v, RULE: tl.constexpr):
    """Return ``z`` for the first half of an extragradient step; nothing of it is kept."""
    if RULE == "sgd":
        return l
    elif RULE == "lars":
        return l * rule.trust
    else:
        return adam_extragradient_direction(rule, g, l, v)
