"""Transposed convolutions, padding, pooling and resizing."""

# A forward here is what users write, `return self.head(x)`, and torch types a module call as Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import WIDE_IMAGE, Bare, hostile, unit


@hostile("transposed_convolution_grouped", groups=4)
@hostile("transposed_convolution_depthwise", named=False, groups=16)
class TransposedGrouped(nn.Module):
    """In a transposed kernel the output axis holds the outputs of one group only."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.stem = unit(3, 16)
        self.up = nn.ConvTranspose2d(16, 32, 3, stride=2, padding=1, output_padding=1, groups=groups)
        self.norm, self.head = nn.BatchNorm2d(32), nn.Conv2d(32, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.up(self.stem(x)))))


@hostile("pad_with_ones", named=False, mode="constant")
@hostile("pad_reflect", named=False, mode="reflect")
class Pad(Bare):
    def __init__(self, mode: str) -> None:
        super().__init__(16, 12)
        self.mode = mode
        self.conv = nn.Conv2d(16, 12, 3)

    def middle(self, x: Tensor) -> Tensor:
        value = 1.0 if self.mode == "constant" else None
        return F.relu(self.conv(F.pad(x, (1, 1, 1, 1), mode=self.mode, value=value)))


@hostile("convolution_padding_modes", named=False)
class PaddingModes(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.conv1 = nn.Conv2d(16, 20, 3, padding=1, padding_mode="circular")
        self.conv2 = nn.Conv2d(20, 12, 3, padding="same", dilation=2)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))))


@hostile("poolings", WIDE_IMAGE, named=False)
class Poolings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = unit(3, 10), unit(10, 14), unit(14, 18)
        self.pool1, self.pool2 = nn.MaxPool2d(2), nn.AvgPool2d(3, 2, 1)
        self.average, self.maximum = nn.AdaptiveAvgPool2d((2, 1)), nn.AdaptiveMaxPool2d(1)
        self.fc = nn.Linear(54, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv3(self.pool2(self.conv2(self.pool1(self.conv1(x)))))
        return self.fc(torch.cat([self.average(x).flatten(1), self.maximum(x).flatten(1)], 1))


@hostile("unpool_by_indices", named=False)
class Unpool(nn.Module):
    """Positions found when pooling one tensor place the values of another: their channels are tied."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.decode = unit(3, 16), unit(16, 16), unit(16, 12)
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, where = self.pool(self.stem(x))
        return self.head(self.decode(self.unpool(self.conv(x), where)))


@hostile("interpolate", named=False)
class Interpolate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = unit(3, 16), unit(16, 20, stride=2), unit(20, 12)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.interpolate(self.conv2(self.conv1(x)), scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.head(F.interpolate(self.conv3(y), size=(5, 5), mode="nearest"))


@hostile("dropout", named=False)
class Dropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 16), nn.Dropout2d(0.2), unit(16, 12), nn.Dropout(0.2))
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.dropout(self.body(x).mean((2, 3)), 0.3, self.training))
