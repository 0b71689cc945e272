"""DenseNet, whose layers read all that was written before them: for 224 x 224 pictures, and a form for 32 x 32.

Paper: Huang et al., Densely Connected Convolutional Networks, CVPR 2017, section 3 and tables 1 and 2. Both forms are
of the kind that the paper calls BC, with bottlenecks, and transitions that halve the channels. Parameter names are
torchvision's.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core.errors import RecipeError
from penjing.zoo.initial import he_normal
from penjing.zoo.widths import scaled

BOTTLENECK = 4
"""How often more channels than a layer writes its 1x1 convolution has."""


class DenseLayer(nn.Module):
    """Append to the input what a 1x1 and a 3x3 convolution make of it.

    Shapes: x [n, inputs, h, w] → [n, inputs + growth, h, w].
    Paper: Huang et al., 2017, section 3, eq. 2 and "bottleneck layers".
    """

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        inner = BOTTLENECK * growth
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return all channels so far."""
        y = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], 1)


class Transition(nn.Module):
    """Halve the channels by a 1x1 convolution, and the size by an average.

    Shapes: x [n, inputs, h, w] → [n, inputs // 2, h // 2, w // 2].
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, inputs // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return half the channels at half the size."""
        return F.avg_pool2d(self.conv(F.relu(self.norm(x))), 2)


class DenseNet(nn.Module):
    """Classify colour pictures with a convolution and blocks of dense layers, with transitions between the blocks.

    ``counts`` are the layers of each block, each of which adds ``growth`` channels; ``small`` makes the first
    convolution 3x3 at stride 1 and leaves the max-pool out.

    Shapes: x [n, 3, h, w] (224 x 224 in the paper) → logits [n, num_classes].
    """

    def __init__(self, num_classes: int, growth: int, counts: tuple[int, ...], small: bool) -> None:
        super().__init__()
        inputs = 2 * growth
        parts: dict[str, nn.Module] = {}
        if small:
            parts["conv0"] = nn.Conv2d(3, inputs, 3, padding=1, bias=False)
        else:
            parts["conv0"] = nn.Conv2d(3, inputs, 7, 2, 3, bias=False)
            parts |= {"norm0": nn.BatchNorm2d(inputs), "relu0": nn.ReLU(), "pool0": nn.MaxPool2d(3, 2, 1)}
        for block, count in enumerate(counts, 1):
            layers = {f"denselayer{i + 1}": DenseLayer(inputs + i * growth, growth) for i in range(count)}
            parts[f"denseblock{block}"] = nn.Sequential(OrderedDict(layers))
            inputs += count * growth
            if block < len(counts):
                parts[f"transition{block}"] = Transition(inputs)
                inputs //= 2
        parts["norm5"] = nn.BatchNorm2d(inputs)
        self.features = nn.Sequential(OrderedDict(parts))
        self.classifier = nn.Linear(inputs, num_classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = F.adaptive_avg_pool2d(F.relu(self.features(x)), 1).flatten(1)
        logits: Tensor = self.classifier(x)
        return logits


def densenet121(num_classes: int = 1000, width: float = 1.0) -> DenseNet:
    """Build DenseNet-121 for 224 x 224 pictures (7,978,856 parameters, 2.8 billion MACs).

    ``width`` multiplies the growth of 32, and with it the channels of every layer.

    Raises: RecipeError for a width at which layers add no channel.
    """
    return DenseNet(num_classes, scaled(32, width), (6, 12, 24, 16), small=False)


def densenet_cifar(num_classes: int = 10, depth: int = 100, growth: int = 12, width: float = 1.0) -> DenseNet:
    """Build DenseNet-BC for 32 x 32 pictures (769,162 parameters, 288 million MACs).

    ``depth`` counts the convolutions and the linear layer, ``growth`` the channels that each dense layer adds (k in the
    paper). ``width`` multiplies it, so that networks of one growth are a family.

    Raises: RecipeError for a depth that is not 4 and a multiple of 6, a growth below 1, and a width at which layers add
        no channel.
    """
    if depth < 10 or (depth - 4) % 6:
        raise RecipeError(f"DenseNet-BC has a depth of 10, 16, 22 and so on, by 6; got {depth}.")
    if growth < 1:
        raise RecipeError(f"growth is how many channels a dense layer adds, 1 or more; got {growth}.")
    return DenseNet(num_classes, scaled(growth, width), ((depth - 4) // 6,) * 3, small=True)
