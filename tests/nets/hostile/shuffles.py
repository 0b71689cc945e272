"""Channels that change places."""

# A forward here is what users write, `return self.head(x)`, and torch types a module call as Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import Bare, hostile, pooled, shuffle, unit


@hostile("shufflenet_v1_unit")
class ShuffleV1(nn.Module):
    """Grouped 1x1, shuffle, depthwise, grouped 1x1; the second unit concats a pooled shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 16)
        self.first, self.last = self.ends(16, 16, 1)
        self.first2, self.last2 = self.ends(16, 24, 2)
        self.head = pooled(40)

    @staticmethod
    def ends(inputs: int, outputs: int, stride: int) -> tuple[nn.Sequential, nn.Sequential]:
        last = nn.Sequential(
            unit(16, 16, stride=stride, groups=16, act=False), unit(16, outputs, 1, groups=4, act=False)
        )
        return unit(inputs, 16, 1, groups=4), last

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x + self.last(shuffle(self.first(x), 4)))
        y = self.last2(shuffle(self.first2(x), 4))
        return self.head(F.relu(torch.cat([F.avg_pool2d(x, 3, 2, 1), y], 1)))


@hostile("shufflenet_v2_unit", units=1)
@hostile("shufflenet_v2_two_units", units=2)
@hostile("shufflenet_v2_units_after_stride", units=2, down=True)
class ShuffleV2(nn.Module):
    def __init__(self, units: int, down: bool = False) -> None:
        super().__init__()
        self.stem = unit(3, 16)
        self.left = nn.Sequential(unit(16, 16, stride=2, groups=16), unit(16, 12, 1)) if down else None
        self.right = nn.Sequential(unit(16, 20, 1), unit(20, 12, stride=2)) if down else None
        half = 12 if down else 8
        self.branches = nn.ModuleList(
            nn.Sequential(unit(half, half, 1), unit(half, half, groups=half, act=False), unit(half, half, 1))
            for _ in range(units)
        )
        self.last = unit(2 * half, 16, 1)
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.left is not None and self.right is not None:
            x = shuffle(torch.cat([self.left(x), self.right(x)], 1), 2)
        for branch in self.branches:
            a, b = x.chunk(2, dim=1)
            x = shuffle(torch.cat([a, branch(b)], 1), 2)
        return self.head(self.last(x))


@hostile("shuffle_by_index_buffer", select=True)
@hostile("shuffle_by_index_buffer_getitem", select=False)
class ShuffleByIndex(Bare):
    order: Tensor

    def __init__(self, select: bool) -> None:
        super().__init__(16, 12)
        self.select = select
        self.grouped1, self.grouped2 = unit(16, 16, 1, groups=4), unit(16, 16, 1, groups=4)
        self.register_buffer("order", torch.arange(16).view(4, 4).t().reshape(-1))
        self.last = unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        x = self.grouped1(x)
        x = x.index_select(1, self.order) if self.select else x[:, self.order]
        return self.last(self.grouped2(x))


@hostile("shuffle_module")
class ShuffleModule(Bare):
    def __init__(self) -> None:
        super().__init__(24, 12)
        self.shuffle, self.grouped = nn.ChannelShuffle(3), unit(24, 24, groups=3)
        self.last = unit(24, 12, 1)

    def middle(self, x: Tensor) -> Tensor:
        return self.last(self.grouped(self.shuffle(x)))


@hostile("pixel_shuffle")
class PixelShuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 16), nn.Conv2d(16, 40, 3, padding=1), nn.PixelShuffle(2), nn.ReLU())
        self.refine = unit(10, 12)
        self.head = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.refine(self.body(x)))


@hostile("pixel_unshuffle")
class PixelUnshuffle(Bare):
    def __init__(self) -> None:
        super().__init__(10, 16)
        self.conv = unit(40, 16)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(F.pixel_unshuffle(x, 2))


@hostile("space_to_depth_by_slices", named=False)
class SpaceToDepth(Bare):
    def __init__(self) -> None:
        super().__init__(10, 16)
        self.conv = unit(40, 16)

    def middle(self, x: Tensor) -> Tensor:
        corners = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
        return self.conv(torch.cat(corners, 1))
