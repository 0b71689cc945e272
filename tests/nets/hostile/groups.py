"""Grouped and depthwise convolutions."""

# A forward here is what users write, `return self.head(x)`, and torch types a module call as Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import Bare, hostile, pooled, unit


@hostile("depthwise", multiplier=1)
@hostile("depthwise_multiplier_2", multiplier=2)
class Depthwise(Bare):
    def __init__(self, multiplier: int) -> None:
        super().__init__(12, 16)
        self.depthwise = unit(12, 12 * multiplier, groups=12)
        self.point = unit(12 * multiplier, 16, 1)

    def middle(self, x: Tensor) -> Tensor:
        return self.point(self.depthwise(x))


@hostile("depthwise_on_input")
class DepthwiseOnInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 3, groups=3), unit(3, 12, groups=3), unit(12, 16, 1), unit(16, 12))
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


@hostile("inverted_residual")
class InvertedResidual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 8)
        self.block1 = self.block(8, 24, 8, 1)
        self.block2 = self.block(8, 32, 12, 2)
        self.block3 = self.block(12, 48, 12, 1)
        self.head = pooled(12)

    @staticmethod
    def block(inputs: int, inner: int, outputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Sequential(nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()),
            unit(inner, inner, stride=stride, groups=inner),
            unit(inner, outputs, 1, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.block1(x)
        x = self.block2(x)
        return self.head(x + self.block3(x))


@hostile("grouped_4", groups=4)
@hostile("grouped_3_of_eight", groups=3)
class Grouped(Bare):
    """Grouped convolution of module type; its group count breaks when groups lose unequally."""

    def __init__(self, groups: int) -> None:
        super().__init__(24, 16)
        self.grouped = unit(24, 36, groups=groups)
        self.point = unit(36, 16, 1)

    def middle(self, x: Tensor) -> Tensor:
        return self.point(self.grouped(x))


@hostile("grouped_after_concat")
class GroupedAfterConcat(nn.Module):
    """Group borders fall inside the concat's pieces: 10 + 14 channels in 3 groups of 8."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = unit(3, 10), unit(3, 14, 1)
        self.grouped, self.point = unit(24, 24, groups=3), unit(24, 12, 1)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x), self.right(x)], 1)
        return self.head(self.point(self.grouped(x)))


@hostile("grouped_twice_with_different_counts")
class GroupedTwice(Bare):
    """Six groups feed four: a count that suits one need not suit the other."""

    def __init__(self) -> None:
        super().__init__(24, 12)
        self.six, self.four = unit(24, 24, groups=6), unit(24, 24, groups=4)
        self.point = unit(24, 12, 1)

    def middle(self, x: Tensor) -> Tensor:
        return self.point(self.four(self.six(x)))


@hostile("grouped_literal_functional", per_group=None)
@hostile("grouped_by_shape_functional", per_group=4)
@hostile("depthwise_by_shape_functional", per_group=1)
class FunctionalGroups(Bare):
    """The group count stands in the forward: a literal 6, or so many input channels per group."""

    def __init__(self, per_group: int | None) -> None:
        super().__init__(24, 16)
        self.per_group = per_group
        self.kernel = nn.Parameter(torch.empty(24, per_group or 4, 3, 3))
        self.bias = nn.Parameter(torch.empty(24))
        self.norm, self.point = nn.BatchNorm2d(24), unit(24, 16, 1)

    def middle(self, x: Tensor) -> Tensor:
        groups = 6 if self.per_group is None else x.shape[1] // self.per_group
        x = F.conv2d(x, self.kernel, self.bias, padding=1, groups=groups)
        return self.point(F.relu(self.norm(x)))
