"""A small residual network for 8x8 images."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

_GROUPS = 4


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; halves the resolution."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(_GROUPS, channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(_GROUPS, channels_out)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1, stride=2, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.norm1(self.conv1(images)))
        return F.relu(self.norm2(self.conv2(hidden)) + self.shortcut(images))


class ResNet(nn.Module):
    """A stem and two residual blocks: 8x8, 4x4 and 2x2 pixels, 20,000 parameters.

    GroupNorm, not BatchNorm: the network is then a function of its parameters alone. Running statistics would be
    those of the extrapolated points, different on each worker, and would not fit the base iterate that is evaluated.

    Args:
        width: channels of the stem, a multiple of 4; each block doubles them.
        classes: number of outputs.
    """

    def __init__(self, width: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(_GROUPS, width)
        self.blocks = nn.Sequential(Block(width, 2 * width), Block(2 * width, 4 * width))
        self.head = nn.Linear(4 * width * 2 * 2, classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.norm(self.stem(images)))
        return self.head(self.blocks(hidden).flatten(1))
