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


class Bottleneck(nn.Module):
    """Add 1x1, 3x3 and 1x1 convolutions to the input, projected where the shape changes.

    Paper: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, figure 5, right.
    """

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        project = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Identity() if same else project

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum after the last ReLU."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        return F.relu(self.shortcut(x) + y)


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel alone, narrow by 1x1 without activation; add the input where shapes allow.

    Paper: Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018, section 3.3.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, wider: int = 4) -> None:
        super().__init__()
        width = inputs * wider
        self.added = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU6(),
            nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False), nn.BatchNorm2d(width), nn.ReLU6(),
            nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Return the narrow output."""
        y: Tensor = self.layers(x)
        return x + y if self.added else y


class Inception(nn.Module):
    """Put 1x1, 3x3 and pooled branches side by side.

    Paper: Szegedy et al., Going Deeper with Convolutions, CVPR 2015, figure 2 (b), without its 5x5 branch.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.point = nn.Conv2d(inputs, width, 1)
        self.narrow, self.wide = nn.Conv2d(inputs, width, 1), nn.Conv2d(width, 2 * width, 3, padding=1)
        self.pooled = nn.Conv2d(inputs, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches side by side, 4 times ``width`` channels."""
        pooled = F.max_pool2d(x, 3, stride=1, padding=1)
        wide = self.wide(F.relu(self.narrow(x)))
        return F.relu(torch.cat([self.point(x), wide, self.pooled(pooled)], 1))


def small_bottleneck_net() -> nn.Sequential:
    """Build a residual network of four bottlenecks for 8 x 8 grey pictures of ten classes."""
    blocks = [Bottleneck(16, 8, 1), Bottleneck(32, 8, 1), Bottleneck(32, 16, 2), Bottleneck(64, 16, 1)]
    return nn.Sequential(*_stem(16), *blocks, *_head(64))


def small_concat_net() -> nn.Sequential:
    """Build an inception module behind a densely connected block, for 8 x 8 grey pictures of ten classes."""
    middle = [DenseBlock(16, 3, 8), nn.BatchNorm2d(40), nn.ReLU(), nn.AvgPool2d(2), Inception(40, 16)]
    return nn.Sequential(*_stem(16), *middle, *_head(64))


def small_depthwise_net() -> nn.Sequential:
    """Build four inverted residuals for 8 x 8 grey pictures of ten classes."""
    plan = [(16, 16, 1), (16, 24, 2), (24, 24, 1), (24, 32, 1)]
    last = [nn.Conv2d(32, 64, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU6()]
    return nn.Sequential(*_stem(16), *(InvertedResidual(*one) for one in plan), *last, *_head(64))


def _stem(width: int) -> list[nn.Module]:
    return [nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


def _head(width: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]
