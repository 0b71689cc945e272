"""Gates, and weights or modules that are used more than once."""

# A forward here is what users write, `return self.head(x)`, and torch types a module call as Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import Bare, hostile, pooled, unit


@hostile("squeeze_excite_conv", mode="conv")
@hostile("squeeze_excite_linear", mode="linear")
@hostile("squeeze_excite_expand_as", mode="expand")
class SqueezeExcite(Bare):
    def __init__(self, mode: str) -> None:
        super().__init__(20, 16)
        self.mode = mode
        layer: Any = partial(nn.Conv2d, kernel_size=1) if mode == "conv" else nn.Linear
        self.squeeze, self.excite = layer(20, 8), layer(8, 20)
        self.conv = unit(20, 16)

    def middle(self, x: Tensor) -> Tensor:
        n, c = x.shape[:2]
        gate = F.adaptive_avg_pool2d(x, 1)
        if self.mode != "conv":
            gate = gate.view(n, c)
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(gate))))
        if self.mode == "linear":
            gate = gate[:, :, None, None]
        elif self.mode == "expand":
            gate = gate.view(n, c, 1, 1).expand_as(x)
        return self.conv(x * gate)


@hostile("same_convolution_twice", branches=False)
@hostile("same_convolution_on_two_branches", branches=True)
class SharedConvolution(nn.Module):
    def __init__(self, branches: bool) -> None:
        super().__init__()
        self.branches = branches
        self.left, self.right = unit(3, 16), unit(3, 16, 1)
        self.shared = nn.Conv2d(16, 16, 3, padding=1)
        # The same object under a second name, as happens when a part is exposed for convenience.
        self.alias = self.shared
        self.last = unit(16, 12)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        if self.branches:
            x = F.relu(self.shared(self.left(x))) * F.relu(self.alias(self.right(x)))
        else:
            x = F.relu(self.shared(F.relu(self.alias(self.left(x))))) + self.right(x)
        return self.head(self.last(x))


@hostile("same_block_twice")
class SharedBlock(nn.Module):
    """A whole block with its norm runs at two scales; its outputs are summed after resizing."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.last = unit(3, 16), nn.Sequential(unit(16, 20), unit(20, 16)), unit(16, 12)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.stem(x))
        y = self.block(F.avg_pool2d(x, 2))
        return self.head(self.last(x + F.interpolate(y, scale_factor=2.0)))


@hostile("shared_norm")
class SharedNorm(nn.Module):
    """Two producers pass through one BN and are consumed apart; its parameters couple them."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 16, 1)
        self.norm = nn.BatchNorm2d(16)
        self.last1, self.last2 = unit(16, 10), unit(16, 14)
        self.head = pooled(24)

    def forward(self, x: Tensor) -> Tensor:
        a, b = F.relu(self.norm(self.left(x))), F.relu(self.norm(self.right(x)))
        return self.head(torch.cat([self.last1(a), self.last2(b)], 1))


@hostile("same_parameter_in_two_modules")
class SharedParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 16)
        self.conv1, self.conv2 = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.conv2.weight = self.conv1.weight
        self.last = unit(16, 12)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(self.stem(x)))
        return self.head(self.last(F.relu(self.conv2(x))))


@hostile("transposed_weight_tying")
class TransposedTying(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 12), unit(12, 24))
        self.weight = nn.Parameter(torch.empty(10, 24))
        self.bias = nn.Parameter(torch.empty(10))
        self.fc = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x).mean((2, 3))
        code = F.relu(F.linear(x, self.weight, self.bias))
        return self.fc(x - F.linear(code, self.weight.t()))
