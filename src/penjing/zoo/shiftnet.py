"""Residual networks of 1x1 convolutions alone, which shift channels to see beyond one pixel: for 32 x 32 pictures.

Paper: Wu et al., Shift: A Zero FLOP, Zero Parameter Alternative to Spatial Convolutions, CVPR 2018, sections 3 and 4.1.
Differs: the first convolution is 1x1 as well, of the pictures shifted by each of the nine offsets, which computes what
a 3x3 one does with as many weights; and shifts, not the convolutions behind them, stride, which moves fewer values and
computes the same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core.errors import RecipeError
from penjing.factors.layer import Shift
from penjing.zoo.initial import he_normal
from penjing.zoo.widths import scaled

STAGES = (16, 32, 64)
"""Channels of the stages; all but the first begin with a stride of 2."""

OFFSETS = 9
"""The places of a 3x3 kernel, row by row."""


def shift(channels: int, stride: int) -> Shift:
    """Return a shift of equal groups of channels by each offset, the remainder staying where it is."""
    counts = [channels // OFFSETS] * OFFSETS
    counts[OFFSETS // 2] += channels % OFFSETS
    return Shift(counts, stride=(stride, stride))


class ShiftBlock(nn.Module):
    """Add to the input a 1x1 convolution, a shift and another 1x1 convolution.

    The input passes a 1x1 convolution of its own where shapes change.

    Shapes: x [n, inputs, h, w] → [n, outputs, ⌈h / stride⌉, ⌈w / stride⌉].
    Paper: Wu et al., 2018, section 4.1 and figure 3.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = expansion * outputs
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.shift2 = shift(inner, stride)
        self.conv2 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        changed = stride > 1 or inputs != outputs
        conv = [nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)]
        self.shortcut = nn.Sequential(*(conv if changed else []))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output after the last ReLU."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(self.shift2(y)))
        return F.relu(y + self.shortcut(x))


class ShiftNet(nn.Module):
    """Classify colour pictures with 1x1 convolutions and shifts.

    ``width`` multiplies the channels of the stages.

    Shapes: x [n, 3, h, w] → logits [n, num_classes].
    """

    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module

    def __init__(self, num_classes: int, count: int, expansion: int, width: float) -> None:
        super().__init__()
        if expansion < 1:
            raise RecipeError(f"expansion is how often wider a block is inside, 1 or more; got {expansion}.")
        stages = [scaled(channels, width) for channels in STAGES]
        inputs = stages[0]
        self.shift1 = Shift([3] * OFFSETS)
        self.conv1 = nn.Conv2d(3 * OFFSETS, inputs, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        for stage, outputs in enumerate(stages, 1):
            blocks = []
            for i in range(count):
                blocks.append(ShiftBlock(inputs, outputs, 2 if stage > 1 and i == 0 else 1, expansion))
                inputs = outputs
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(inputs, num_classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.shift1(torch.cat([x] * OFFSETS, 1))
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def shiftnet20_cifar(num_classes: int = 10, expansion: int = 6, width: float = 1.0) -> ShiftNet:
    """Build the network with three blocks a stage (186,746 parameters, 32 million MACs).

    ``expansion`` is how often wider a block is inside; 1, 3, 6 and 9 are published. ``width`` multiplies the channels
    of the stages; the paper has none but 1.

    Raises: RecipeError for an expansion below 1, and for a width at which a stage has no channel.
    """
    return ShiftNet(num_classes, 3, expansion, width)


def shiftnet56_cifar(num_classes: int = 10, expansion: int = 6, width: float = 1.0) -> ShiftNet:
    """Build the network with nine blocks a stage (583,226 parameters, 89 million MACs).

    ``expansion``, ``width`` and raises: as ``shiftnet20_cifar``.
    """
    return ShiftNet(num_classes, 9, expansion, width)
