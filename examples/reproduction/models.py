"""The three networks, small enough for two cores, each with the sum of its losses over some examples."""

from __future__ import annotations

import torch
from resnet import Block
from torch import Tensor, nn
from torch.nn import functional as F

from reproduction.texts import PADDING


class Network(nn.Module):
    """A classifier of images, or of each word of a text.

    Attributes:
        ignored: a target that is not predicted.
    """

    ignored = -100

    def scores(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the logits of each prediction, (..., classes); of the targets only those before it may be used."""
        raise NotImplementedError

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of the cross-entropies."""
        scores = self.scores(inputs, targets).flatten(0, -2)
        return F.cross_entropy(scores, targets.flatten(), ignore_index=self.ignored, reduction="sum")

    def count(self, inputs: Tensor, targets: Tensor) -> int:
        """Return how many predictions there are."""
        return int((targets != self.ignored).sum())

    def hits(self, inputs: Tensor, targets: Tensor) -> int:
        """Return how many predictions are right."""
        likeliest = self.scores(inputs, targets).argmax(dim=-1)
        return int(((likeliest == targets) & (targets != self.ignored)).sum())


class ImageResNet(Network):
    """A stem and residual blocks, as in ``examples/resnet.py``, with the mean over all pixels at the end.

    Args:
        colors: channels of the images, (n, colors, height, width).
        width: channels of the stem, a multiple of 4; each block doubles them.
        classes: number of outputs.
        blocks: how many; each halves the resolution.
    """

    def __init__(self, colors: int, width: int = 8, classes: int = 10, blocks: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(colors, width, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(4, width)
        self.blocks = nn.Sequential(*(Block(width * 2**i, width * 2 ** (i + 1)) for i in range(blocks)))
        self.head = nn.Linear(width * 2**blocks, classes)

    def scores(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """See :class:`Network`."""
        hidden = self.blocks(F.relu(self.norm(self.stem(inputs))))
        return self.head(hidden.mean(dim=(2, 3)))


class LanguageModel(Network):
    """An LSTM that predicts the next word; its input and output matrices are one."""

    def __init__(self, vocabulary: int, width: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def scores(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """See :class:`Network`."""
        return F.linear(self.lstm(self.embedding(inputs))[0], self.embedding.weight, self.bias)


class Translator(Network):
    """An encoder and a decoder of two layers each, with the norms first."""

    ignored = PADDING

    def __init__(self, vocabularies: tuple[int, int], length: int, width: int = 64) -> None:
        super().__init__()
        self.source, self.target = (nn.Embedding(size, width) for size in vocabularies)
        for embedding in (self.source, self.target):
            nn.init.normal_(embedding.weight, std=width**-0.5)
        self.places = nn.Parameter(torch.randn(length, width) * width**-0.5)
        self.transformer = nn.Transformer(width, 4, 2, 2, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length), persistent=False)
        self.mask: Tensor

    def scores(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """See :class:`Network`."""
        return F.linear(self._hidden(inputs, targets), self.target.weight)

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """See :class:`Network`; half of the time goes to the scores, and a quarter of those would be of padding."""
        words = targets != PADDING
        scores = F.linear(self._hidden(inputs, targets)[words], self.target.weight)
        return F.cross_entropy(scores, targets[words], reduction="sum")

    def _hidden(self, inputs: Tensor, targets: Tensor) -> Tensor:
        before = F.pad(targets, (1, 0), value=PADDING)[:, :-1]
        padding = torch.zeros(inputs.shape).masked_fill(inputs == PADDING, -torch.inf)
        hidden: Tensor = self.transformer(
            self.source(inputs) + self.places,
            self.target(before) + self.places,
            tgt_mask=self.mask,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
            tgt_is_causal=True,
        )
        return hidden
