"""A small Transformer that predicts the next character of Python's own documentation, which comes with Python."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pydoc_data.topics import topics
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONTEXT = 64
_LETTERS = bytes(range(32, 127)) + b"\n"


class Text(NamedTuple):
    """Character codes, int64; the last tenth of the topics, in alphabetical order, is for validation."""

    train: Tensor
    validation: Tensor


@functools.cache
def load() -> Text:
    """Return the help topics of Python, without characters beyond ASCII."""
    parts = [topics[name] for name in sorted(topics)]
    cut = len(parts) * 9 // 10
    return Text(_codes("\n".join(parts[:cut])), _codes("\n".join(parts[cut:])))


def _codes(text: str) -> Tensor:
    kept = text.encode("ascii", "ignore").translate(None, bytes(set(range(128)) - set(_LETTERS)))
    table = torch.zeros(128, dtype=torch.int64)
    table[torch.tensor(list(_LETTERS))] = torch.arange(len(_LETTERS))
    return table[torch.frombuffer(bytearray(kept), dtype=torch.uint8).long()]


def batches(text: Tensor, batch_size: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Yield ``steps`` batches of random excerpts of ``CONTEXT + 1`` characters."""
    generator = torch.Generator().manual_seed(seed)
    excerpts = text.unfold(0, CONTEXT + 1, 1)
    for _ in range(steps):
        yield excerpts[torch.randint(len(excerpts), (batch_size,), generator=generator)]


class Layer(nn.Module):
    """Attention and a feed-forward network, each after a norm and with a residual connection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """A decoder of 112,000 parameters; from codes of shape (batch, characters) to logits."""

    def __init__(self, width: int = 64, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(len(_LETTERS), width), nn.Embedding(CONTEXT, width)
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, len(_LETTERS))

    def forward(self, codes: Tensor) -> Tensor:
        x = self.embedding(codes) + self.position(torch.arange(codes.shape[1]))
        logits: Tensor = self.head(self.norm(self.layers(x)))
        return logits
