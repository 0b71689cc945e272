"""MobileNetV2, of inverted residuals: for 224 x 224 pictures, and a form for 32 x 32 pictures.

Paper: Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018, sections 3 and 4, table 2.
Parameter names are torchvision's.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from penjing.zoo.initial import he_normal
from penjing.zoo.widths import in_eights

STEM, LAST = 32, 1280
"""Channels after the first and the last convolution, at width 1."""

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""The paper's t, c, n and s: how often wider inside, channels at width 1, blocks, and the first one's stride."""


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel alone, narrow by 1x1 without activation; add the input where shapes allow.

    Shapes: x [n, inputs, h, w] → [n, outputs, ⌈h / stride⌉, ⌈w / stride⌉].
    Paper: Sandler et al., 2018, section 3.3 and table 1.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, wider: int) -> None:
        super().__init__()
        inner = inputs * wider
        self.added = stride == 1 and inputs == outputs
        widen = [_conv(inputs, inner, 1)] if wider > 1 else []
        narrow = (nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.conv = nn.Sequential(*widen, _conv(inner, inner, 3, stride, groups=inner), *narrow)

    def forward(self, x: Tensor) -> Tensor:
        """Return the narrow output."""
        y: Tensor = self.conv(x)
        return x + y if self.added else y


class MobileNetV2(nn.Module):
    """Classify colour pictures with seventeen inverted residuals between two convolutions.

    ``width`` multiplies the channels of every layer but the last convolution, which grows above 1 only; ``strides``
    are those of the first convolution and of the stages' first blocks.

    Shapes: x [n, 3, h, w] (224 x 224 in the paper) → logits [n, num_classes].
    """

    def __init__(self, num_classes: int, width: float, strides: tuple[int, ...]) -> None:
        super().__init__()
        inputs = in_eights(STEM, width)
        layers: list[nn.Module] = [_conv(3, inputs, 3, strides[0])]
        for (wider, channels, count, _), first in zip(STAGES, strides[1:], strict=True):
            outputs = in_eights(channels, width)
            for i in range(count):
                layers.append(InvertedResidual(inputs, outputs, 1 if i else first, wider))
                inputs = outputs
        last = in_eights(LAST, max(1.0, width))
        self.features = nn.Sequential(*layers, _conv(inputs, last, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes))
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = F.adaptive_avg_pool2d(self.features(x), 1).flatten(1)
        logits: Tensor = self.classifier(x)
        return logits


def mobilenet_v2(num_classes: int = 1000, width: float = 1.0) -> MobileNetV2:
    """Build MobileNetV2 for 224 x 224 pictures (3,504,872 parameters, 301 million MACs).

    Published widths are 1.4, 1, 0.75, 0.5 and 0.35 (1,677,128 parameters, 59 million MACs).

    Raises: RecipeError for a width that is not above zero.
    """
    return MobileNetV2(num_classes, width, (2, *(stride for *_, stride in STAGES)))


def mobilenet_v2_cifar(num_classes: int = 10, width: float = 1.0) -> MobileNetV2:
    """Build MobileNetV2 for 32 x 32 pictures (2,236,682 parameters, 88 million MACs).

    Differs: the first convolution and the stage of 24 channels do not stride, so the last blocks see 4 x 4.

    Raises: RecipeError for a width that is not above zero.
    """
    return MobileNetV2(num_classes, width, (1, 1, 1, *(stride for *_, stride in STAGES[2:])))
