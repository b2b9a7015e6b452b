"""Parameter shapes: those of well-known models, from their architecture, and some extreme cases."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Shape = tuple[int, ...]
VOCABULARY = 50257  # of GPT-2


def resnet50() -> list[Shape]:
    """ResNet-50 (He et al. 2016): 161 tensors, 25.6 million numbers."""

    def convolution(outputs: int, inputs: int, kernel: int) -> list[Shape]:
        return [(outputs, inputs, kernel, kernel), (outputs,), (outputs,)]  # with its batch norm

    shapes = convolution(64, 3, 7)
    inputs = 64
    for blocks, width in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            shapes += convolution(width, inputs, 1) + convolution(width, width, 3) + convolution(4 * width, width, 1)
            if block == 0:
                shapes += convolution(4 * width, inputs, 1)
            inputs = 4 * width
    return [*shapes, (1000, inputs), (1000,)]


def gpt2(width: int = 768, layers: int = 12) -> list[Shape]:
    """GPT-2 (Radford et al. 2019); by default its smallest size: 148 tensors, 124 million numbers."""
    vocabulary, context = VOCABULARY, 1024
    norm: list[Shape] = [(width,), (width,)]
    attention: list[Shape] = [(width, 3 * width), (3 * width,), (width, width), (width,)]
    feed_forward: list[Shape] = [(width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    block = norm + attention + norm + feed_forward
    return [(vocabulary, width), (context, width), *(block * layers), *norm]


def llama(vocabulary: int, width: int, layers: int, heads: int, key_heads: int, hidden: int) -> list[Shape]:
    """Llama (Touvron et al. 2023): untied embeddings, grouped-query attention, gated feed-forward, no biases."""
    keys = width // heads * key_heads
    attention: list[Shape] = [(width, width), (keys, width), (keys, width), (width, width)]
    feed_forward: list[Shape] = [(hidden, width), (hidden, width), (width, hidden)]
    block: list[Shape] = [*attention, *feed_forward, (width,), (width,)]
    return [(vocabulary, width), *(block * layers), (width,), (vocabulary, width)]


def llama2_7b() -> list[Shape]:
    """Llama-2-7B: 291 tensors, 6.7 billion numbers."""
    return llama(vocabulary=32000, width=4096, layers=32, heads=32, key_heads=32, hidden=11008)


def llama3_70b() -> list[Shape]:
    """Llama-3-70B: 723 tensors, 70.6 billion numbers."""
    return llama(vocabulary=128256, width=8192, layers=80, heads=64, key_heads=8, hidden=28672)


def half_billion() -> list[Shape]:
    """A transformer of Llama's kind with 0.53 billion numbers in 147 tensors."""
    return llama(vocabulary=32000, width=1536, layers=16, heads=12, key_heads=12, hidden=4096)


def many_small(tensors: int = 1000) -> list[Shape]:
    """Tensors of 64 numbers, so that host overhead is all that counts."""
    return [(64,)] * tensors


def one_large(numel: int = 100_000_000) -> list[Shape]:
    """One tensor."""
    return [(numel,)]


def odd(tensors: int = 200) -> list[Shape]:
    """Sizes around 100,000, not multiples of a vector."""
    return [(100_003 + 2 * i,) for i in range(tensors)]


def numel_of(shapes: Sequence[Shape]) -> int:
    """Return how many numbers tensors of these shapes hold."""
    return sum(math.prod(shape) for shape in shapes)


def parameters(
    shapes: Sequence[Shape],
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    offset: int = 0,
) -> list[Tensor]:
    """Return parameters of these shapes with gradients, filled with normal numbers.

    Args:
        shapes: of the parameters.
        dtype: of parameters and gradients.
        device: their device.
        offset: elements between the aligned start of the memory and the first element of the tensor.
    """
    generator = torch.Generator(device).manual_seed(0)

    def normal(shape: Shape) -> Tensor:
        memory = torch.empty(math.prod(shape) + offset, dtype=dtype, device=device).normal_(generator=generator)
        return memory[offset:].view(shape)

    made = []
    for shape in shapes:
        param = normal(shape).requires_grad_()
        param.grad = normal(shape)
        made.append(param)
    return made
