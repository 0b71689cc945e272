"""Dead ends, raw maps and heads."""

# A forward here is what users write, `return self.head(x)`, and torch types a module call as Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn

from .case import Bare, hostile, pooled, unit


@hostile("dead_branch", named=False)
class DeadBranch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.dead, self.last = unit(3, 16), unit(16, 20), unit(16, 12)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        self.dead(x).mean()
        return self.head(self.last(x))


@hostile("unused_parameter", named=False)
class UnusedParameter(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.ghost, self.unused = nn.Parameter(torch.empty(16)), nn.Conv2d(16, 16, 3)
        self.last = unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.last(x)


@hostile("raw_feature_map", named=False, residual=False)
@hostile("raw_feature_map_of_residual", named=False, residual=True)
class RawFeatureMap(nn.Module):
    """The network's output is a hidden map: its channels are the user's and may not change."""

    def __init__(self, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.stem = unit(3, 12)
        self.body = nn.Sequential(unit(12, 24), unit(24, 20), unit(20, 12, act=False))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return x + self.body(x) if self.residual else self.body(x)


@hostile("detection_head", named=False)
class DetectionHead(nn.Module):
    """Output channels are anchors times fields, unfolded by a literal view."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 12), unit(12, 20, stride=2))
        self.head = nn.Conv2d(20, 21, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.body(x))
        return x.view(x.shape[0], 3, 7, *x.shape[2:]).permute(0, 1, 3, 4, 2).reshape(x.shape[0], -1, 7)


@hostile("arithmetic_multiply", named=False, mode="multiply")
@hostile("arithmetic_subtract_divide", named=False, mode="divide")
@hostile("arithmetic_maximum", named=False, mode="maximum")
@hostile("arithmetic_highway", named=False, mode="highway")
class Arithmetic(nn.Module):
    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.left, self.right = unit(3, 16), unit(3, 16, 1, act=False)
        self.last = unit(16, 12)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.left(x), self.right(x)
        if self.mode == "multiply":
            y = a * b
        elif self.mode == "divide":
            y = (a - b) / (1 + b.abs())
        elif self.mode == "maximum":
            y = torch.maximum(a, b)
        else:
            gate = torch.sigmoid(b)
            y = gate * a + (1 - gate) * b
        return self.head(self.last(y))
