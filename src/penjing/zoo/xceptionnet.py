"""Xception, of separable convolutions in residual blocks: for 299 x 299 pictures, and a form for 32 x 32 pictures.

Paper: Chollet, Xception: Deep Learning with Depthwise Separable Convolutions, CVPR 2017, section 4 and figure 5.
Parameter names are those of the port whose weights are in common use (Cadene's, and timm's ``legacy_xception`` 1.0).
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from penjing.zoo.initial import he_normal
from penjing.zoo.widths import scaled

ENTRY, MIDDLE, EXIT = (128, 256, 728), 8, (1024, 1536, 2048)
"""Channels of the first three blocks; how many blocks of as many channels follow; channels of the last three layers."""


class SeparableConv(nn.Module):
    """Filter each channel alone with a 3x3 convolution, then mix the channels, with no activation in between.

    Shapes: x [n, inputs, h, w] → [n, outputs, h, w].
    Paper: Chollet, 2017, sections 3.1 and 4.7.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mixed channels."""
        y: Tensor = self.pointwise(self.conv1(x))
        return y


class XceptionBlock(nn.Module):
    """Add separable convolutions, with a ReLU before each, to their input.

    ``channels`` are those before, between and behind them. A block that changes their number ends with a max-pool that
    halves the size, and its input passes a 1x1 convolution that strides. The first block is read behind a ReLU, so that
    it has none (``relu``).

    Shapes: x [n, channels[0], h, w] → [n, channels[-1], ...].
    """

    def __init__(self, channels: tuple[int, ...], relu: bool = True) -> None:
        super().__init__()
        inputs, outputs = channels[0], channels[-1]
        self.halves = inputs != outputs
        if self.halves:
            self.skip = nn.Conv2d(inputs, outputs, 1, 2, bias=False)
            self.skipbn = nn.BatchNorm2d(outputs)
        layers: list[nn.Module] = []
        for read, made in pairwise(channels):
            layers += [nn.ReLU(), SeparableConv(read, made), nn.BatchNorm2d(made)]
        self.rep = nn.Sequential(*layers[0 if relu else 1 :], *([nn.MaxPool2d(3, 2, 1)] if self.halves else []))

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum; no activation follows."""
        y: Tensor = self.rep(x)
        return y + (self.skipbn(self.skip(x)) if self.halves else x)


class Xception(nn.Module):
    """Classify colour pictures with two convolutions, twelve blocks and two separable convolutions.

    ``width`` multiplies the channels of every layer; ``small`` is the form for small pictures.

    Shapes: x [n, 3, h, w] (299 x 299 in the paper) → logits [n, num_classes].
    """

    def __init__(self, num_classes: int, width: float, small: bool) -> None:
        super().__init__()
        first, inputs, *entry = (scaled(channels, width) for channels in (32, 64, *ENTRY))
        narrow, wide, last = (scaled(channels, width) for channels in EXIT)
        pad = 1 if small else 0
        self.conv1 = nn.Conv2d(3, first, 3, 1 if small else 2, pad, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, inputs, 3, 1, pad, bias=False)
        self.bn2 = nn.BatchNorm2d(inputs)
        shapes: list[tuple[int, ...]] = [(read, made, made) for read, made in pairwise((inputs, *entry))]
        shapes += [(entry[-1],) * 4] * MIDDLE
        shapes += [(entry[-1], entry[-1], narrow)]
        for i, channels in enumerate(shapes):
            self.add_module(f"block{i + 1}", XceptionBlock(channels, relu=i > 0))
        self.count = len(shapes)
        self.conv3 = SeparableConv(narrow, wide)
        self.bn3 = nn.BatchNorm2d(wide)
        self.conv4 = SeparableConv(wide, last)
        self.bn4 = nn.BatchNorm2d(last)
        self.fc = nn.Linear(last, num_classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        for i in range(self.count):
            x = self.get_submodule(f"block{i + 1}")(x)
        x = F.relu(self.bn3(self.conv3(x)))
        x = F.relu(self.bn4(self.conv4(x)))
        logits: Tensor = self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def xception(num_classes: int = 1000, width: float = 1.0) -> Xception:
    """Build Xception for 299 x 299 pictures (22,855,952 parameters, 8.4 billion MACs).

    ``width`` multiplies the channels of every layer; the paper has none but 1.

    Raises: RecipeError for a width at which a convolution has no channel.
    """
    return Xception(num_classes, width, small=False)


def xception_cifar(num_classes: int = 10, width: float = 1.0) -> Xception:
    """Build Xception for 32 x 32 pictures (20,827,442 parameters, 375 million MACs).

    Differs: the first convolution does not stride, and it and the second are padded, so that the eight equal blocks see
    4 x 4. ``width`` multiplies the channels of every layer.

    Raises: RecipeError for a width at which a convolution has no channel.
    """
    return Xception(num_classes, width, small=True)
