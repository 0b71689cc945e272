"""Products, selections and writes in place."""

# A forward here is what users write, `return self.head(x)`, and torch types a module call as Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import Bare, hostile, pooled, unit


@hostile("einsum_classifier", named=False)
class EinsumClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 12), unit(12, 20))
        self.weight = nn.Parameter(torch.empty(5, 20))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,kc->nk", self.body(x), self.weight) / 64


@hostile("matmul_projection", named=False)
class MatmulProjection(Bare):
    """A pointwise convolution written as a batch of matrix products with the weight on the left."""

    def __init__(self) -> None:
        super().__init__(16, 12)
        self.weight, self.last = nn.Parameter(torch.empty(20, 16)), unit(20, 12)

    def middle(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        return self.last(F.relu(torch.matmul(self.weight, x.flatten(2)).view(n, -1, h, w)))


@hostile("cosine_classifier", named=False)
class CosineClassifier(nn.Module):
    """The feature's length counts channels that no classifier weight can silence."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 16), unit(16, 20), unit(20, 12))
        self.weight = nn.Parameter(torch.empty(5, 12))

    def forward(self, x: Tensor) -> Tensor:
        x = F.normalize(self.body(x).mean((2, 3)), dim=1)
        return F.linear(x, F.normalize(self.weight, dim=1)) * 4


@hostile("bilinear_pooling", named=False)
class BilinearPooling(nn.Module):
    """Every pair of channels becomes a feature."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = unit(3, 16), unit(16, 8), unit(16, 10)
        self.fc = nn.Linear(80, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        pairs = torch.einsum("nchw,ndhw->ncd", self.left(x), self.right(x)) / 64
        return self.fc(pairs.flatten(1))


@hostile("stack_and_sum", named=False)
class StackAndSum(Bare):
    def __init__(self) -> None:
        super().__init__(12, 20)
        self.branches = nn.ModuleList(unit(12, 16, kernel) for kernel in (1, 3, 5))
        self.last = unit(16, 20)

    def middle(self, x: Tensor) -> Tensor:
        return self.last(torch.stack([branch(x) for branch in self.branches]).sum(0))


@hostile("where", named=False)
class Where(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12, act=False)
        self.other, self.mask, self.last = unit(3, 16, 1), nn.Conv2d(16, 1, 1), unit(16, 12)
        self.slope = nn.Parameter(torch.empty(1, 16, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y = torch.where(y > 0, y, self.slope * y)
        return self.head(self.last(torch.where(self.mask(y) > 0, y, self.other(x))))


@hostile("in_place", named=False)
class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv1, self.conv2 = unit(3, 16), unit(16, 16, act=False), unit(16, 16, act=False)
        self.last = nn.Sequential(nn.Conv2d(16, 12, 1), nn.BatchNorm2d(12), nn.ReLU(inplace=True))
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.conv1(x)
        y.add_(x).relu_()
        z = self.conv2(y)
        z += y
        z *= 0.7
        return self.head(self.last(z))


@hostile("in_place_on_view", named=False)
class InPlaceOnView(nn.Module):
    """Writing to a slice changes the tensor it was taken from."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate, self.last = unit(3, 16, act=False), unit(3, 8, 1), unit(16, 12)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y[:, : y.shape[1] // 2].add_(self.gate(x))
        return self.head(self.last(F.relu(y)))


@hostile("assign_to_slices", named=False)
class AssignToSlices(nn.Module):
    """A concat written as assignments into an empty tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = unit(3, 10), unit(3, 14, 1), unit(24, 12)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.left(x), self.right(x)
        y = x.new_zeros(x.shape[0], a.shape[1] + b.shape[1], *x.shape[2:])
        y[:, : a.shape[1]] = a
        y[:, a.shape[1] :] = b
        return self.head(self.last(y))
