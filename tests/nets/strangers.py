"""Structures met in networks of public packages: numbers held in modules, aliases, attention along channels, maps."""

# A forward here is what users write, `return self.head(x)`, and torch types a module call as Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn

from .hostile.case import pooled, unit


class MixedKernels(nn.Module):
    """Channels are split by a stored list, and every part has a kernel of its own (MixNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.splits = [8, 6, 6]
        self.stem = unit(3, 20)
        self.parts = nn.ModuleList(unit(n, n, k, groups=n) for n, k in zip(self.splits, (3, 5, 7), strict=True))
        self.join, self.head = unit(20, 12, 1), pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        pieces = torch.split(self.stem(x), self.splits, 1)
        return self.head(self.join(torch.cat([part(p) for part, p in zip(self.parts, pieces, strict=True)], 1)))


class StoredHalves(nn.Module):
    """One half of a stored width goes through a block (CSP)."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 24
        self.stem, self.block = unit(3, self.width), unit(12, 12)
        self.join, self.head = unit(24, 12, 1), pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.stem(x).split(self.width // 2, dim=1)
        return self.head(self.join(torch.cat([a, self.block(b)], 1)))


class StoredSlices(nn.Module):
    """A sum of the first channels, a concat of the others (dual paths)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = 9
        self.stem, self.body = unit(3, 16), unit(16, 14)
        self.head = pooled(9 + 7 + 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.body(x)
        together = x[:, : self.first] + y[:, : self.first]
        return self.head(torch.cat([together, x[:, self.first :], y[:, self.first :]], 1))


class BesideIt(nn.Module):
    """Holds a number that happens to be the size of a half, and splits by the shape."""

    def __init__(self) -> None:
        super().__init__()
        self.shown = 10
        self.stem, self.block = unit(3, 20), unit(10, 10)
        self.head = pooled(20)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        half = x.shape[1] // 2
        return self.head(torch.cat([self.block(x[:, half:]), x[:, :half]], 1))


class TwiceNamed(nn.Module):
    """Its modules have a second name, in a chain that runs them (nnU-Net)."""

    def __init__(self) -> None:
        super().__init__()
        self.chain = nn.Sequential(nn.Conv2d(3, 12, 3), nn.InstanceNorm2d(12, affine=True), nn.GroupNorm(3, 12))
        self.first, self.norm, self.second = self.chain[0], self.chain[1], self.chain[2]
        self.alias = nn.ModuleDict({"again": self.chain})
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.alias["again"](x))


class ChannelAttention(nn.Module):
    """A convolution along the channels weighs them (ECA)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = unit(3, 16), unit(16, 12)
        self.along = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.stem(x))
        y = self.along(x.mean((2, 3)).view(x.shape[0], 1, -1)).sigmoid().view(x.shape[0], -1, 1, 1)
        return self.head(x * y.expand_as(x))


class Pyramid(nn.Module):
    """Returns maps of two sizes, as a detector's backbone does."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = unit(3, 12), unit(12, 12), unit(12, 16, stride=2)
        self.lateral = nn.ModuleList([nn.Conv2d(12, 8, 1), nn.Conv2d(16, 8, 1)])

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.one(self.stem(x))
        y = self.lateral[1](self.two(x))
        up = nn.functional.interpolate(y, size=x.shape[2:])
        return {"0": self.lateral[0](x) + up, "1": y}


class Mask(nn.Module):
    """A small U-Net: every pixel has a class."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.down, self.deep = unit(3, 12), unit(12, 16, stride=2)
        self.up = nn.ConvTranspose2d(16, 12, 2, 2)
        self.out = nn.Sequential(unit(24, 12), nn.Conv2d(12, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        return self.out(torch.cat([x, self.up(self.deep(x))], 1))
