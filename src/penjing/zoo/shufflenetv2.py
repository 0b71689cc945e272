"""ShuffleNetV2, whose units leave half of their channels alone: for 224 x 224 pictures, and a form for 32 x 32.

Paper: Ma et al., ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design, ECCV 2018, section 4 and
table 5. Parameter names are torchvision's.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from penjing.core.errors import RecipeError
from penjing.zoo.initial import he_normal
from penjing.zoo.shuffle import interleaved

STEM = 24
"""Channels after the first convolution, at every width."""

STAGES = (4, 8, 4)
"""How many units the stages have."""

OUTPUTS: Mapping[float, tuple[int, int, int, int]] = MappingProxyType(
    {0.5: (48, 96, 192, 1024), 1.0: (116, 232, 464, 1024), 1.5: (176, 352, 704, 1024), 2.0: (244, 488, 976, 2048)}
)
"""Channels of the stages and of the last convolution, by width."""


def _conv(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def _alone(channels: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
    return [conv, nn.BatchNorm2d(channels)]


class HalvedUnit(nn.Module):
    """Pass half of the channels through 1x1, depthwise 3x3 and 1x1 convolutions and mix both halves by a shuffle.

    Where the unit strides, both halves are computed, each from all channels. The sizes of the halves are a list, which
    a cut sets: either may lose channels without the other.

    Shapes: x [n, inputs, h, w] → [n, outputs, ⌈h / stride⌉, ⌈w / stride⌉].
    Paper: Ma et al., 2018, section 4.2 and figure 3 (c) and (d).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.halves = [half, half] if stride == 1 else []
        self.branch1 = nn.Sequential(*([] if self.halves else [*_alone(inputs, stride), *_conv(inputs, half)]))
        read = half if self.halves else inputs
        self.branch2 = nn.Sequential(*_conv(read, half), *_alone(half, stride), *_conv(half, half))
        self.shuffle = interleaved(outputs, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return both halves, interleaved."""
        left, right = x.split(self.halves, 1) if self.halves else (x, x)
        y: Tensor = self.shuffle(torch.cat([self.branch1(left), self.branch2(right)], 1))
        return y


class ShuffleNetV2(nn.Module):
    """Classify colour pictures with sixteen units between two convolutions.

    ``small`` leaves out the stride of the first convolution and the max-pool.

    Shapes: x [n, 3, h, w] (224 x 224 in the paper) → logits [n, num_classes].
    """

    stage2: nn.Module
    stage3: nn.Module
    stage4: nn.Module

    def __init__(self, num_classes: int, width: float, small: bool) -> None:
        super().__init__()
        if width not in OUTPUTS:
            known = ", ".join(f"{known:g}" for known in OUTPUTS)
            raise RecipeError(f"ShuffleNetV2 is published in the widths {known}; got {width}.")
        *stages, last = OUTPUTS[width]
        first = nn.Conv2d(3, STEM, 3, 1 if small else 2, 1, bias=False)
        self.conv1 = nn.Sequential(first, nn.BatchNorm2d(STEM), nn.ReLU())
        self.maxpool: nn.Module = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        inputs = STEM
        for number, (count, outputs) in enumerate(zip(STAGES, stages, strict=True), 2):
            rest = (HalvedUnit(outputs, outputs, 1) for _ in range(count - 1))
            self.add_module(f"stage{number}", nn.Sequential(HalvedUnit(inputs, outputs, 2), *rest))
            inputs = outputs
        self.conv5 = nn.Sequential(*_conv(inputs, last))
        self.fc = nn.Linear(last, num_classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.maxpool(self.conv1(x))
        x = self.conv5(self.stage4(self.stage3(self.stage2(x))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def shufflenet_v2(num_classes: int = 1000, width: float = 1.0) -> ShuffleNetV2:
    """Build ShuffleNetV2 for 224 x 224 pictures (2,278,604 parameters, 145 million MACs).

    Published widths are 2, 1.5, 1 and 0.5 (1,366,792 parameters, 40 million MACs).

    Raises: RecipeError for another width.
    """
    return ShuffleNetV2(num_classes, width, small=False)


def shufflenet_v2_cifar(num_classes: int = 10, width: float = 1.0) -> ShuffleNetV2:
    """Build ShuffleNetV2 for 32 x 32 pictures (1,263,854 parameters, 45 million MACs).

    Differs: the first convolution does not stride, and no max-pool follows, so that the stages see 16 x 16, 8 x 8 and
    4 x 4.

    Raises: RecipeError for another width.
    """
    return ShuffleNetV2(num_classes, width, small=True)
