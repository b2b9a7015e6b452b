"""Norms in double precision."""

from __future__ import annotations

import math

from torch import Tensor


def square_sum(tensor: Tensor) -> float:
    """Return the sum of the squared absolute values."""
    return float(tensor.double().square().sum())


def norm(tensor: Tensor) -> float:
    """Return the Euclidean norm of all elements of a real tensor."""
    return math.sqrt(square_sum(tensor))
