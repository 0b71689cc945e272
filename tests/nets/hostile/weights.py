"""Weights that are computed, and parameters that belong to no layer."""

# A forward here is what users write, `return self.head(x)`, and torch types a module call as Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from .case import Bare, hostile, pooled, unit


@hostile("reparameterised_sum_of_kernels")
class RepVGG(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.large, self.small = nn.Parameter(torch.empty(20, 16, 3, 3)), nn.Parameter(torch.empty(20, 16, 1, 1))
        self.norm, self.last = nn.BatchNorm2d(20), unit(20, 12)

    def middle(self, x: Tensor) -> Tensor:
        kernel = self.large + F.pad(self.small, [1, 1, 1, 1])
        return self.last(F.relu(self.norm(F.conv2d(x, kernel, padding=1))))


@hostile("scaled_kernel")
class ScaledKernel(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.v, self.scale = nn.Parameter(torch.empty(20, 16, 3, 3)), nn.Parameter(torch.empty(20))
        self.last = unit(20, 12)

    def middle(self, x: Tensor) -> Tensor:
        kernel = self.scale[:, None, None, None] * self.v
        return self.last(F.relu(F.conv2d(x, kernel, padding=1)))


@hostile("low_rank_kernel", reshape_inputs=True)
@hostile("low_rank_kernel_by_einsum", reshape_inputs=False)
class LowRankKernel(Bare):
    """The rank is an axis of parameters alone: it never appears in an activation."""

    def __init__(self, reshape_inputs: bool) -> None:
        super().__init__(16, 12)
        self.u = nn.Parameter(torch.empty(20, 8))
        self.v = nn.Parameter(torch.empty((8, 144) if reshape_inputs else (8, 16, 3, 3)))
        self.last = unit(20, 12)

    def middle(self, x: Tensor) -> Tensor:
        if self.v.dim() == 2:
            kernel = (self.u @ self.v).view(self.u.shape[0], -1, 3, 3)
        else:
            kernel = torch.einsum("or,rikl->oikl", self.u, self.v)
        return self.last(F.relu(F.conv2d(x, kernel, padding=1)))


@hostile("weight_norm")
class WeightNorm(nn.Module):
    """The norm of a filter runs over its inputs, so a zeroed input leaves it as a removed one does."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 16)
        self.conv1 = parametrizations.weight_norm(nn.Conv2d(16, 20, 3, padding=1))
        self.conv2 = parametrizations.weight_norm(nn.Conv2d(20, 12, 3, padding=1))
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv2(F.relu(self.conv1(self.stem(x))))))


@hostile("weight_standardisation", named=False, constant="weights are standardised over their inputs")
class WeightStandardisation(nn.Module):
    class Conv(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            w = self.weight
            mean, var = w.mean((1, 2, 3), keepdim=True), w.var((1, 2, 3), keepdim=True)
            return self._conv_forward(x, (w - mean) * torch.rsqrt(var + 1e-5) * 0.1, self.bias)

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = self.Conv(3, 16, 3, padding=1), self.Conv(16, 20, 3, padding=1)
        self.conv3 = nn.Conv2d(20, 12, 1)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))))


@hostile("dynamic_convolution", named=False)
class DynamicConvolution(Bare):
    """Kernels are mixed per sample, and the batch is folded into the channels for one grouped call."""

    def __init__(self) -> None:
        super().__init__(12, 12)
        self.route = nn.Linear(12, 3)
        self.experts = nn.Parameter(torch.empty(3, 16, 12, 3, 3))
        self.last = unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        attention = torch.softmax(self.route(x.mean((2, 3))), 1)
        kernel = torch.einsum("ne,eoikl->noikl", attention, self.experts).reshape(-1, c, 3, 3)
        x = F.conv2d(x.reshape(1, n * c, h, w), kernel, padding=1, groups=n).view(n, -1, h, w)
        return self.last(F.relu(x))


@hostile("sliced_weight")
class SlicedWeight(Bare):
    """A slimmable layer: the kernel is larger than what is used, and sliced to the input's width."""

    def __init__(self) -> None:
        super().__init__(12, 12)
        self.weight = nn.Parameter(torch.empty(16, 20, 3, 3))
        self.last = unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.last(F.relu(F.conv2d(x, self.weight[:, : x.shape[1]], padding=1)))


@hostile("parameter_list")
class KernelList(Bare):
    def __init__(self) -> None:
        super().__init__(12, 12)
        widths = (12, 20, 14, 12)
        self.kernels = nn.ParameterList(torch.empty(b, a, 1, 1) for a, b in pairwise(widths))

    def middle(self, x: Tensor) -> Tensor:
        for kernel in self.kernels:
            x = F.relu(F.conv2d(x, kernel))
        return x


@hostile("layer_scale")
class LayerScale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 16)
        self.body = nn.Sequential(unit(16, 24), nn.Conv2d(24, 16, 3, padding=1))
        self.gamma = nn.Parameter(torch.empty(1, 16, 1, 1))
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.gamma * self.body(x))


@hostile("learned_bias")
class LearnedBias(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.bias = nn.Parameter(torch.empty(16))
        self.bias2 = nn.Parameter(torch.empty(20, 1, 1))
        self.conv, self.last = nn.Conv2d(16, 20, 3, padding=1, bias=False), unit(20, 12)

    def middle(self, x: Tensor) -> Tensor:
        x = F.relu(x + self.bias.view(1, -1, 1, 1))
        return self.last(F.relu(self.conv(x) + self.bias2))


@hostile("position_embedding")
class PositionEmbedding(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.position, self.conv = nn.Parameter(torch.empty(1, 16, 8, 8)), unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(x + self.position)
