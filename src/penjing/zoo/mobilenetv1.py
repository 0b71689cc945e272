"""MobileNet, of depthwise-separable convolutions: for 224 x 224 pictures, and a form for 32 x 32 pictures.

Paper: Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications, 2017,
section 3 and table 1.
Differs: ReLU6 in place of ReLU, as in the authors' released code. Parameter names are timm's (1.0), whose weights fit.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from penjing.zoo.initial import he_normal
from penjing.zoo.widths import in_eights

STEM = 32
"""Channels after the first convolution, at width 1."""

STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))
"""Channels at width 1, number of blocks, and the stride of the first of them."""


class SeparableBlock(nn.Module):
    """Filter each channel alone with a 3x3 convolution, then mix the channels with a 1x1 convolution.

    Shapes: x [n, inputs, h, w] → [n, outputs, ⌈h / stride⌉, ⌈w / stride⌉].
    Paper: Howard et al., 2017, section 3.1 and figure 3.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv_pw = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mixed channels after the activation."""
        x = F.relu6(self.bn1(self.conv_dw(x)))
        return F.relu6(self.bn2(self.conv_pw(x)))


class MobileNetV1(nn.Module):
    """Classify colour pictures with a convolution and thirteen depthwise-separable blocks.

    ``width`` multiplies the channels of every layer (α in the paper); ``stride`` is the first convolution's.

    Shapes: x [n, 3, h, w] (224 x 224 in the paper) → logits [n, num_classes].
    """

    def __init__(self, num_classes: int, width: float, stride: int) -> None:
        super().__init__()
        inputs = in_eights(STEM, width)
        self.conv_stem = nn.Conv2d(3, inputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        stages: list[nn.Module] = []
        for channels, count, first in STAGES:
            outputs = in_eights(channels, width)
            rest = (SeparableBlock(outputs, outputs, 1) for _ in range(count - 1))
            stages.append(nn.Sequential(SeparableBlock(inputs, outputs, first), *rest))
            inputs = outputs
        self.blocks = nn.Sequential(*stages)
        self.classifier = nn.Linear(inputs, num_classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.blocks(F.relu6(self.bn1(self.conv_stem(x))))
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def mobilenet_v1(num_classes: int = 1000, width: float = 1.0) -> MobileNetV1:
    """Build MobileNet for 224 x 224 pictures (4,231,976 parameters, 569 million MACs).

    Published widths are 1, 0.75, 0.5 and 0.25 (470,072 parameters, 41 million MACs).

    Raises: RecipeError for a width that is not above zero.
    """
    return MobileNetV1(num_classes, width, stride=2)


def mobilenet_v1_cifar(num_classes: int = 10, width: float = 1.0) -> MobileNetV1:
    """Build MobileNet for 32 x 32 pictures (3,217,226 parameters, 46 million MACs).

    Differs: the first convolution does not stride, so the last blocks see 2 x 2.

    Raises: RecipeError for a width that is not above zero.
    """
    return MobileNetV1(num_classes, width, stride=1)
