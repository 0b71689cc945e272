"""Activations, those among them that pair channels."""

# A forward here is what users write, `return self.head(x)`, and torch types a module call as Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import Bare, hostile, pooled, unit


@hostile("prelu", named=False)
class PReLU(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.act1, self.act2 = nn.PReLU(16), nn.PReLU()
        self.conv1, self.conv2 = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act2(self.conv2(self.act1(self.conv1(x) - self.stem(x)))))


@hostile("glu", named=False)
class GatedLinearUnit(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.conv, self.last = nn.Conv2d(16, 28, 3, padding=1), unit(14, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.last(F.glu(self.conv(x), 1))


@hostile("maxout", named=False, pieces_last=True)
@hostile("maxout_by_slices", pieces_last=False)
class Maxout(Bare):
    def __init__(self, pieces_last: bool) -> None:
        super().__init__(16, 12)
        self.pieces_last = pieces_last
        self.conv, self.last = nn.Conv2d(16, 24, 3, padding=1), unit(12, 12)

    def middle(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        n, c, h, w = x.shape
        if self.pieces_last:
            return self.last(x.view(n, c // 2, 2, h, w).amax(2))
        return self.last(torch.maximum(x[:, : c // 2], x[:, c // 2 :]))


@hostile("funnel_activation", named=False)
class FunnelActivation(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.funnel, self.conv = unit(16, 16, groups=16, act=False), unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(torch.max(x, self.funnel(x)))


@hostile("activations", named=False, kind="common")
@hostile("activations_rare", named=False, kind="rare")
class Activations(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        common = (nn.ReLU6(), nn.SiLU(), nn.GELU(), nn.Hardswish())
        rare = (nn.LeakyReLU(0.1), nn.ELU(), nn.Softplus(), nn.Sigmoid(), nn.Tanh(), nn.Mish(), nn.Hardsigmoid())
        layers: list[nn.Module] = []
        width = 3
        for index, act in enumerate(common if kind == "common" else rare):
            layers += [unit(width, 10 + 2 * index, 1, act=False), act]
            width = 10 + 2 * index
        self.body, self.head = nn.Sequential(*layers), pooled(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))
