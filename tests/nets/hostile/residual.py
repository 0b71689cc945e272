"""Sums that tie the layers which write into them."""

# A forward here is what users write, `return self.head(x)`, and torch types a module call as Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import WIDE_IMAGE, hostile, pooled, unit


@hostile("residual")
class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 16)
        self.blocks = nn.ModuleList(nn.Sequential(unit(16, inner), unit(inner, 16, act=False)) for inner in (12, 20))
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = F.relu(x + block(x))
        return self.head(x)


@hostile("option_a_shortcut", WIDE_IMAGE, literal=True)
@hostile("option_a_shortcut_by_shape", WIDE_IMAGE, literal=False)
class OptionA(nn.Module):
    """Shortcuts that slice space and pad channels with zeros, as in the ResNets for CIFAR."""

    def __init__(self, literal: bool) -> None:
        super().__init__()
        self.literal = literal
        self.stem = unit(3, 8)
        widths = (8, 8, 16, 32)
        self.widths = widths[1:]
        self.blocks = nn.ModuleList(
            nn.Sequential(unit(a, b, stride=1 if a == b else 2), unit(b, b, act=False)) for a, b in pairwise(widths)
        )
        self.head = pooled(32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block, planes in zip(self.blocks, self.widths, strict=True):
            y = block(x)
            if x.shape[-1] != y.shape[-1]:
                pad = planes // 4 if self.literal else (y.shape[1] - x.shape[1]) // 2
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, pad, pad), "constant", 0)
            x = F.relu(x + y)
        return self.head(x)


@hostile("option_b_shortcut")
class OptionB(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 8)
        self.body1 = nn.Sequential(unit(8, 16, stride=2), unit(16, 16, act=False))
        self.short1 = unit(8, 16, 1, stride=2, act=False)
        self.body2 = nn.Sequential(unit(16, 24, stride=2), unit(24, 24, act=False))
        self.short2 = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(16, 24, 1))
        self.head = pooled(24)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(self.body1(x) + self.short1(x))
        x = F.relu(self.body2(x) + self.short2(x))
        return self.head(x)


@hostile("bottleneck", groups=1)
@hostile("resnext_16x4", groups=16)
class Bottleneck(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        inner = 12 if groups == 1 else 4 * groups
        self.stem = unit(3, 16)
        self.body1 = nn.Sequential(unit(16, inner, 1), unit(inner, inner, groups=groups), unit(inner, 48, 1, act=False))
        self.short1 = unit(16, 48, 1, act=False)
        self.body2 = nn.Sequential(unit(48, inner, 1), unit(inner, inner, groups=groups), unit(inner, 48, 1, act=False))
        self.head = pooled(48)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(self.body1(x) + self.short1(x))
        return self.head(F.relu(self.body2(x) + x))


@hostile("preactivation")
class PreActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm1, self.conv1 = nn.BatchNorm2d(16), nn.Conv2d(16, 12, 3, padding=1)
        self.norm2, self.conv2 = nn.BatchNorm2d(12), nn.Conv2d(12, 16, 3, padding=1)
        self.norm3, self.conv3 = nn.BatchNorm2d(16), nn.Conv2d(16, 24, 3, stride=2, padding=1)
        self.short3 = nn.Conv2d(16, 24, 1, stride=2)
        self.norm4 = nn.BatchNorm2d(24)
        self.head = pooled(24)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.conv1(F.relu(self.norm1(x)))
        x = x + self.conv2(F.relu(self.norm2(y)))
        # The shortcut starts after the activation, which is what differs from the first block.
        y = F.relu(self.norm3(x))
        x = self.conv3(y) + self.short3(y)
        return self.head(F.relu(self.norm4(x)))


@hostile("rezero")
class ReZero(nn.Module):
    """The residual branch is scaled by a parameter without any axis."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 16)
        self.body = nn.Sequential(unit(16, 24), nn.Conv2d(24, 16, 3, padding=1))
        self.alpha = nn.Parameter(torch.tensor(1.0))
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + 0.5 * self.alpha * self.body(x))
