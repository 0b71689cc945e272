"""Residual networks: the 6n+2 family for 32 x 32 pictures and the ImageNet family.

Paper: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, sections 3.3, 4.1 and 4.2.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core.errors import RecipeError
from penjing.zoo.initial import he_normal
from penjing.zoo.widths import scaled

Shortcut = Literal["A", "B"]
"""How a 6n+2 network crosses a change of width: A pads with zeros, B projects with a 1x1 convolution."""


def _conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def _conv1x1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)


class ZeroPadShortcut(nn.Module):
    """Halve height and width by dropping pixels, double the channels with zeros on both sides.

    Shapes: x [n, planes / 2, h, w] → [n, planes, ⌈h/2⌉, ⌈w/2⌉].
    Paper: He et al., 2016, section 3.3, option A.
    """

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.planes = planes

    def forward(self, x: Tensor) -> Tensor:
        """Return the subsampled, padded ``x``."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.planes // 4, self.planes // 4))


class CifarBlock(nn.Module):
    """Add two 3x3 convolutions to their input.

    Shapes: x [n, inputs, h, w] → [n, planes, h / stride, w / stride].
    """

    def __init__(self, inputs: int, planes: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inputs, planes, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != planes:
            self.shortcut = (
                ZeroPadShortcut(planes)
                if shortcut == "A"
                else nn.Sequential(_conv1x1(inputs, planes, stride), nn.BatchNorm2d(planes))
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output after the last ReLU."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class CifarResNet(nn.Module):
    """Classify 32 x 32 colour pictures with three stages of 16, 32 and 64 channels, times ``width``.

    Shapes: x [n, 3, 32, 32] → logits [n, num_classes].
    Paper: He et al., 2016, section 4.2; a network of ``blocks`` per stage has 6 blocks + 2 layers.
    """

    def __init__(self, blocks: int, num_classes: int, shortcut: Shortcut, width: float = 1.0) -> None:
        super().__init__()
        if shortcut not in ("A", "B"):
            raise RecipeError(f"shortcut = {shortcut!r} is not right: choose 'A' (zero padding) or 'B' (1x1).")
        planes = 2 * scaled(8, width)  # even, since option A pads both sides alike
        self.conv1 = _conv3x3(3, planes)
        self.bn1 = nn.BatchNorm2d(planes)
        self.layer1 = self._stage(planes, planes, blocks, 1, shortcut)
        self.layer2 = self._stage(planes, 2 * planes, blocks, 2, shortcut)
        self.layer3 = self._stage(2 * planes, 4 * planes, blocks, 2, shortcut)
        self.linear = nn.Linear(4 * planes, num_classes)
        he_normal(self)

    @staticmethod
    def _stage(inputs: int, planes: int, blocks: int, stride: int, shortcut: Shortcut) -> nn.Sequential:
        first = CifarBlock(inputs, planes, stride, shortcut)
        return nn.Sequential(first, *(CifarBlock(planes, planes, 1, shortcut) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


class BasicBlock(nn.Module):
    """Add two 3x3 convolutions to their input; the ImageNet form, with torchvision's names.

    Shapes: x [n, inputs, h, w] → [n, planes, h / stride, w / stride].
    """

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inputs, planes, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _downsample(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output after the last ReLU."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.downsample(x))


class Bottleneck(nn.Module):
    """Add a 1x1, 3x3, 1x1 chain that narrows, works and widens fourfold to its input.

    Shapes: x [n, inputs, h, w] → [n, 4 planes, h / stride, w / stride].
    Differs: the paper strides in the first 1x1; here the 3x3 strides (the "v1.5" of torchvision's weights).
    """

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv1x1(inputs, planes)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv3x3(planes, planes, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = _conv1x1(planes, planes * self.expansion)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.downsample = _downsample(inputs, planes * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output after the last ReLU."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + self.downsample(x))


def _downsample(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(_conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))


class ImageNetResNet(nn.Module):
    """Classify large colour pictures with four stages; parameter names are torchvision's.

    Shapes: x [n, 3, h, w] (224 x 224 in the paper) → logits [n, num_classes].
    Paper: He et al., 2016, section 4.1 and table 1.
    """

    def __init__(
        self, block: type[BasicBlock | Bottleneck], blocks: tuple[int, int, int, int], num_classes: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        wide = block.expansion
        self.layer1 = self._stage(block, 64, 64, blocks[0], 1)
        self.layer2 = self._stage(block, 64 * wide, 128, blocks[1], 2)
        self.layer3 = self._stage(block, 128 * wide, 256, blocks[2], 2)
        self.layer4 = self._stage(block, 256 * wide, 512, blocks[3], 2)
        self.fc = nn.Linear(512 * wide, num_classes)
        he_normal(self)

    @staticmethod
    def _stage(
        block: type[BasicBlock | Bottleneck], inputs: int, planes: int, blocks: int, stride: int
    ) -> nn.Sequential:
        first = block(inputs, planes, stride)
        rest = (block(planes * block.expansion, planes, 1) for _ in range(blocks - 1))
        return nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def resnet20(num_classes: int = 10, shortcut: Shortcut = "A", width: float = 1.0) -> CifarResNet:
    """Build the 20-layer network for 32 x 32 pictures (269,722 parameters)."""
    return CifarResNet(3, num_classes, shortcut, width)


def resnet32(num_classes: int = 10, shortcut: Shortcut = "A", width: float = 1.0) -> CifarResNet:
    """Build the 32-layer network for 32 x 32 pictures (464,154 parameters)."""
    return CifarResNet(5, num_classes, shortcut, width)


def resnet44(num_classes: int = 10, shortcut: Shortcut = "A", width: float = 1.0) -> CifarResNet:
    """Build the 44-layer network for 32 x 32 pictures (658,586 parameters)."""
    return CifarResNet(7, num_classes, shortcut, width)


def resnet56(num_classes: int = 10, shortcut: Shortcut = "A", width: float = 1.0) -> CifarResNet:
    """Build the 56-layer network for 32 x 32 pictures (853,018 parameters).

    >>> sum(p.numel() for p in resnet56().parameters())
    853018
    """
    return CifarResNet(9, num_classes, shortcut, width)


def resnet110(num_classes: int = 10, shortcut: Shortcut = "A", width: float = 1.0) -> CifarResNet:
    """Build the 110-layer network for 32 x 32 pictures (1,727,962 parameters)."""
    return CifarResNet(18, num_classes, shortcut, width)


def resnet18(num_classes: int = 1000) -> ImageNetResNet:
    """Build the 18-layer ImageNet network (11,689,512 parameters)."""
    return ImageNetResNet(BasicBlock, (2, 2, 2, 2), num_classes)


def resnet34(num_classes: int = 1000) -> ImageNetResNet:
    """Build the 34-layer ImageNet network (21,797,672 parameters)."""
    return ImageNetResNet(BasicBlock, (3, 4, 6, 3), num_classes)


def resnet50(num_classes: int = 1000) -> ImageNetResNet:
    """Build the 50-layer ImageNet network (25,557,032 parameters)."""
    return ImageNetResNet(Bottleneck, (3, 4, 6, 3), num_classes)


def resnet101(num_classes: int = 1000) -> ImageNetResNet:
    """Build the 101-layer ImageNet network (44,549,160 parameters)."""
    return ImageNetResNet(Bottleneck, (3, 4, 23, 3), num_classes)


def resnet152(num_classes: int = 1000) -> ImageNetResNet:
    """Build the 152-layer ImageNet network (60,192,808 parameters)."""
    return ImageNetResNet(Bottleneck, (3, 8, 36, 3), num_classes)
