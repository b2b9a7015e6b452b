"""Parameter shapes to step, and parameters with gradients made from them."""

from __future__ import annotations

import torch
from torch import Tensor


def gpt2_124m() -> list[tuple[int, ...]]:
    """Shapes of GPT-2's 148 parameter tensors, 124 million numbers (Radford et al. 2019, smallest size)."""
    width, layers, vocabulary, context = 768, 12, 50257, 1024
    block: list[tuple[int, ...]] = [
        (width,),
        (width,),
        (width, 3 * width),
        (3 * width,),
        (width, width),
        (width,),
        (width,),
        (width,),
        (width, 4 * width),
        (4 * width,),
        (4 * width, width),
        (width,),
    ]
    return [(vocabulary, width), (context, width), *(block * layers), (width,), (width,)]


def many_small() -> list[tuple[int, ...]]:
    """1,000 tensors of 64 numbers: what is left is the overhead of the host."""
    return [(64,)] * 1000


def parameters(shapes: list[tuple[int, ...]], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Return parameters of these shapes with gradients, filled with normal numbers."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for shape in shapes:
        param = torch.randn(shape, generator=generator).to(dtype).requires_grad_()
        param.grad = torch.randn(shape, generator=generator).to(dtype)
        made.append(param)
    return made
