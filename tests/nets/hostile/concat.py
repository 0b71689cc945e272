"""Concatenations, and single channels that reach everywhere."""

# A forward here is what users write, `return self.head(x)`, and torch types a module call as Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import Bare, hostile, pooled, tensors, unit


@hostile("dense_concat")
class DenseConcat(nn.Module):
    """BN, ReLU, convolution on ever wider concats, with a transition between two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 10, 3, padding=1)
        self.first = self.block(10, 6)
        self.transition = nn.Sequential(nn.BatchNorm2d(28), nn.ReLU(), nn.Conv2d(28, 14, 1), nn.AvgPool2d(2))
        self.second = self.block(14, 6)
        self.norm = nn.BatchNorm2d(32)
        self.head = pooled(32)

    @staticmethod
    def block(width: int, growth: int) -> nn.ModuleList:
        widths = [width + growth * index for index in range(3)]
        return nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(w), nn.ReLU(), nn.Conv2d(w, growth, 3, padding=1)) for w in widths
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.first:
            x = torch.cat([x, layer(x)], 1)
        x = self.transition(x)
        features = [x]
        for layer in self.second:
            features.append(layer(torch.cat(features, 1)))
        return self.head(F.relu(self.norm(torch.cat(features, 1))))


@hostile("independent_branches_concat")
class BranchesConcat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = unit(3, 10), unit(3, 14, 1)
        self.join = unit(24, 16)
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.join(torch.cat([self.left(x), self.right(x)], 1)))


@hostile("inception", named=False)
class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 16)
        self.point = unit(16, 8, 1)
        self.small = nn.Sequential(unit(16, 12, 1), unit(12, 10))
        self.asymmetric = nn.Sequential(
            nn.Conv2d(16, 8, (1, 3), padding=(0, 1)), nn.Conv2d(8, 12, (3, 1), padding=(1, 0)), nn.ReLU()
        )
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), unit(16, 6, 1))
        self.head = pooled(36)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.cat([self.point(x), self.small(x), self.asymmetric(x), self.pool(x)], dim=-3))


@hostile("concat_with_itself", mode="same")
@hostile("concat_with_own_negative", mode="negative")
class SelfConcat(Bare):
    def __init__(self, mode: str) -> None:
        super().__init__(16, 20)
        self.mode = mode
        self.conv = unit(32, 20)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(F.relu(torch.cat([x, x if self.mode == "same" else 0.5 - x], 1)))


@hostile("spatial_pyramid_concat", named=False)
class PyramidConcat(Bare):
    """The same channels appear three times in a concat, pooled ever wider."""

    def __init__(self) -> None:
        super().__init__(12, 20)
        self.conv = unit(36, 20, 1)

    def middle(self, x: Tensor) -> Tensor:
        y = F.max_pool2d(x, 3, 1, 1)
        return self.conv(torch.cat([x, y, F.max_pool2d(y, 3, 1, 1)], 1))


@hostile("concat_with_input")
class ConcatWithInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = unit(3, 13), unit(16, 18)
        self.conv3 = unit(21, 12)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(torch.cat([x, self.conv1(x)], 1))
        return self.head(self.conv3(torch.cat([y, x], 1)))


@hostile("add_with_input", tensors((8, 8, 8)))
class AddWithInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(8, 20), unit(20, 8, act=False))
        self.conv = unit(8, 16)
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x + self.body(x)))


@hostile("concat_along_height")
class ConcatAlongHeight(nn.Module):
    """Two producers meet along height, so their channels become one."""

    def __init__(self) -> None:
        super().__init__()
        self.upper, self.lower = unit(3, 16), unit(3, 16, 1)
        self.conv = unit(16, 12)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(torch.cat([self.upper(x), self.lower(x)], 2)))


@hostile("residual_over_concat")
class ResidualOverConcat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = unit(3, 10), unit(3, 14)
        self.inner = unit(24, 16)
        self.back = unit(16, 24, act=False)
        self.head = pooled(24)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x), self.right(x)], 1)
        return self.head(F.relu(x + self.back(self.inner(x))))


@hostile("residual_of_two_concats", named=False)
class ResidualOfTwoConcats(nn.Module):
    """Concats with different borders are added: the borders cut the channels into three pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.a1, self.a2 = unit(3, 10), unit(3, 14)
        self.b1, self.b2 = unit(3, 18, 1), unit(3, 6, 1)
        self.conv = unit(24, 16)
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.cat([self.a1(x), self.a2(x)], 1)
        b = torch.cat([self.b1(x), self.b2(x)], 1)
        return self.head(self.conv(a + b))


@hostile("norm_before_convolution_on_concat")
class NormOnConcat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 9, 3, padding=1), nn.Conv2d(3, 15, 1)
        self.norm, self.conv = nn.BatchNorm2d(24), nn.Conv2d(24, 12, 3, padding=1, bias=False)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat((self.left(x), self.right(x)), 1)
        return self.head(F.relu(self.conv(F.relu(self.norm(x)))))


@hostile("constant_channels_concat", named=False)
class CoordinateConcat(Bare):
    """Two channels of the concat are coordinates, made from the shape alone."""

    def __init__(self) -> None:
        super().__init__(14, 20)
        self.conv = unit(16, 20)

    def middle(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        rows = torch.linspace(-1, 1, h).view(1, 1, h, 1).expand(n, 1, h, w)
        columns = torch.linspace(-1, 1, w).view(1, 1, 1, w).expand(n, 1, h, w)
        return self.conv(torch.cat([x, rows, columns], 1))


@hostile("global_context_concat", named=False)
class GlobalContextConcat(Bare):
    def __init__(self) -> None:
        super().__init__(14, 20)
        self.conv = unit(28, 20)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(torch.cat([x, x.amax((2, 3), keepdim=True).expand_as(x)], 1))


@hostile("one_output_attention_map")
class OneOutputAttention(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.attention = nn.Conv2d(16, 1, 3, padding=1)
        self.conv = unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(x * torch.sigmoid(self.attention(x)))


@hostile("one_output_head")
class OneOutputHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 12), unit(12, 16))
        self.head = nn.Conv2d(16, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.head(self.body(x))).squeeze(1)


@hostile("one_output_map_added")
class OneOutputAdded(Bare):
    """A single channel is broadcast onto all others by an addition; it must not be tied to them."""

    def __init__(self) -> None:
        super().__init__(16, 12)
        self.bias_map, self.conv = unit(16, 1), unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(x + self.bias_map(x))
