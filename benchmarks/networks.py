"""Networks that the benchmarks need and the zoo has not."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DenseLayer(nn.Module):
    """Add ``growth`` channels, made from all channels so far through a bottleneck of four times as many."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return the new channels, given those of all layers before."""
        x = self.conv1(F.relu(self.norm1(torch.cat(features, 1))))
        made: Tensor = self.conv2(F.relu(self.norm2(x)))
        return made


class DenseBlock(nn.Module):
    """Layers of which each reads what all before it made."""

    def __init__(self, inputs: int, layers: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DenseLayer(inputs + i * growth, growth) for i in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """Return the input and all channels made, side by side."""
        features = [x]
        for layer in self.layers:
            features.append(layer(features))
        return torch.cat(features, 1)


def densenet121(num_classes: int = 1000, growth: int = 32) -> nn.Sequential:
    """Build DenseNet-121: blocks of 6, 12, 24 and 16 layers, each transition halving width and space.

    Paper: Huang et al., Densely Connected Convolutional Networks, CVPR 2017, table 1.
    """
    width = 2 * growth
    parts: list[nn.Module] = [
        nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    blocks = (6, 12, 24, 16)
    for i, layers in enumerate(blocks):
        parts.append(DenseBlock(width, layers, growth))
        width += layers * growth
        parts += [nn.BatchNorm2d(width), nn.ReLU()]
        if i + 1 < len(blocks):
            parts += [nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2)]
            width //= 2
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)]
    return nn.Sequential(*parts, *head)
