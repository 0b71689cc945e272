"""ShuffleNet, of grouped 1x1 convolutions and shuffled channels: for 224 x 224 pictures, and a form for 32 x 32.

Paper: Zhang et al., ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices, CVPR 2018,
section 3 and table 1. Parameter names are those of the authors' released code.
Differs: as in that code, channels are shuffled behind the depthwise convolution and dealt out to the groups in turn (0,
2, 4, 1, 3, 5 of six channels in two groups), where the paper's text has the opposite order; and only the branch passes
a ReLU before it is concatenated. The last layer has a bias, which the released weights lack: give them one of zeros.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core.errors import RecipeError
from penjing.zoo.initial import he_normal
from penjing.zoo.shuffle import interleaved

STEM = 24
"""Channels after the first convolution, at width 1."""

STAGES = (4, 8, 4)
"""How many units the stages have; each has twice the channels of the one before."""

OUTPUTS: Mapping[int, int] = MappingProxyType({1: 144, 2: 200, 3: 240, 4: 272, 8: 384})
"""Channels of the first stage at width 1, by the number of groups: about as many MACs with each."""


class ShuffleUnit(nn.Module):
    """Narrow by a grouped 1x1 convolution, filter each channel alone, shuffle, widen by a grouped 1x1 convolution.

    The input is added, or, where the unit strides, its average is put before what the branch computes.

    Shapes: x [n, inputs, h, w] → [n, outputs, ⌈h / stride⌉, ⌈w / stride⌉].
    Paper: Zhang et al., 2018, section 3.2 and figure 2.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int, first: bool) -> None:
        super().__init__()
        inner, made = outputs // 4, outputs if stride == 1 else outputs - inputs
        self.branch_main_1 = nn.Sequential(
            # Section 3.2: the channels of the first convolution are too few for groups.
            nn.Conv2d(inputs, inner, 1, groups=1 if first else groups, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
        )
        self.shuffle: nn.Module = interleaved(inner, inner // groups) if groups > 1 else nn.Identity()
        self.branch_main_2 = nn.Sequential(
            nn.Conv2d(inner, made, 1, groups=groups, bias=False),
            nn.BatchNorm2d(made),
        )
        self.added = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """Return the wide output."""
        y = self.branch_main_2(self.shuffle(self.branch_main_1(x)))
        if self.added:
            return F.relu(x + y)
        return torch.cat([F.avg_pool2d(x, 3, 2, 1), F.relu(y)], 1)


class ShuffleNetV1(nn.Module):
    """Classify colour pictures with a convolution and sixteen shuffle units.

    ``width`` multiplies the channels of every layer (s in the paper), to the nearest number that the groups divide;
    ``small`` leaves out the stride of the first convolution and the max-pool.

    Shapes: x [n, 3, h, w] (224 x 224 in the paper) → logits [n, num_classes].
    """

    def __init__(self, num_classes: int, width: float, groups: int, small: bool) -> None:
        super().__init__()
        if groups not in OUTPUTS:
            raise RecipeError(f"ShuffleNet is published with {', '.join(map(str, OUTPUTS))} groups; got {groups}.")
        inputs = _divisible(STEM, width, groups)
        outputs = _divisible(OUTPUTS[groups], width, 4 * groups)
        self.first_conv = nn.Sequential(
            nn.Conv2d(3, inputs, 3, 1 if small else 2, 1, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
        )
        self.maxpool: nn.Module = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        units: list[nn.Module] = []
        for count in STAGES:
            for i in range(count):
                units.append(ShuffleUnit(inputs, outputs, 1 if i else 2, groups, first=not units))
                inputs = outputs
            outputs *= 2
        self.features = nn.Sequential(*units)
        self.classifier = nn.Sequential(nn.Linear(inputs, num_classes))
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.features(self.maxpool(self.first_conv(x)))
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def shufflenet_v1(num_classes: int = 1000, width: float = 1.0, groups: int = 3) -> ShuffleNetV1:
    """Build ShuffleNet for 224 x 224 pictures (1,865,728 parameters, 137 million MACs).

    Published widths are 2, 1 and 0.5 (718,324 parameters, 38 million MACs), with 1, 2, 3, 4 or 8 groups.

    Raises: RecipeError for a width that is not above zero, and for another number of groups.
    """
    return ShuffleNetV1(num_classes, width, groups, small=False)


def shufflenet_v1_cifar(num_classes: int = 10, width: float = 1.0, groups: int = 3) -> ShuffleNetV1:
    """Build ShuffleNet for 32 x 32 pictures.

    Differs: the first convolution does not stride, and no max-pool follows, so that the stages see 16 x 16, 8 x 8 and
    4 x 4.

    Raises: RecipeError for a width that is not above zero, and for another number of groups.
    """
    return ShuffleNetV1(num_classes, width, groups, small=True)


def _divisible(channels: int, width: float, by: int) -> int:
    if not (math.isfinite(width) and width > 0):
        raise RecipeError(f"width multiplies the channels of every convolution, so it is above 0; got {width}.")
    return max(1, round(channels * width / by)) * by
