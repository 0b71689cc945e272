"""Buffers, and forwards that read their own widths."""

# A forward here is what users write, `return self.head(x)`, and torch types a module call as Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import Bare, generator, hostile, pooled, unit


@hostile("normalisation_buffers", named=False)
class NormalisationBuffers(nn.Module):
    mean: Tensor
    std: Tensor
    offset: Tensor
    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        rng = generator("normalisation")
        self.register_buffer("mean", torch.rand(3, 1, 1, generator=rng))
        self.register_buffer("std", torch.rand(3, 1, 1, generator=rng) + 0.5)
        self.register_buffer("offset", torch.randn(1, 16, 1, 1, generator=rng))
        # Some channels are silenced already, by a buffer and not by a weight.
        self.register_buffer("mask", (torch.rand(20, generator=rng) < 0.7).float())
        self.conv1, self.conv2, self.conv3 = unit(3, 16), unit(16, 20), unit(20, 12)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1((x - self.mean) / self.std) - self.offset
        return self.head(self.conv3(self.conv2(x) * self.mask.view(1, -1, 1, 1)))


@hostile("frozen_batchnorm", named=False)
class FrozenBatchNorm(Bare):
    class Norm(nn.Module):
        weight: Tensor
        bias: Tensor
        mean: Tensor
        variance: Tensor

        def __init__(self, width: int) -> None:
            super().__init__()
            rng = generator(f"frozen {width}")
            for name in ("weight", "variance"):
                self.register_buffer(name, torch.rand(width, generator=rng) + 0.5)
            for name in ("bias", "mean"):
                self.register_buffer(name, torch.randn(width, generator=rng) * 0.3)

        def forward(self, x: Tensor) -> Tensor:
            scale = self.weight * (self.variance + 1e-5).rsqrt()
            shift = self.bias - self.mean * scale
            return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)

    def __init__(self) -> None:
        super().__init__(16, 12)
        self.conv1, self.norm1 = nn.Conv2d(16, 20, 3, padding=1, bias=False), self.Norm(20)
        self.conv2, self.norm2 = nn.Conv2d(20, 12, 3, padding=1, bias=False), self.Norm(12)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


@hostile("branch_on_shape", named=False)
class BranchOnShape(Bare):
    def __init__(self, flag: bool = True) -> None:
        super().__init__(16, 12)
        self.flag = flag
        self.one, self.two, self.last = unit(16, 20), unit(16, 20, 1), unit(20, 12)

    def middle(self, x: Tensor) -> Tensor:
        x = self.one(x) if x.shape[-1] > 4 else self.two(x)
        return self.last(F.max_pool2d(x, 2) if self.flag else x)


@hostile("branch_on_width", named=False, constant="the forward compares a width with a literal")
class BranchOnWidth(Bare):
    """After a cut the other branch would run."""

    def __init__(self) -> None:
        super().__init__(24, 12)
        self.last = unit(24, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.last(x * 2 if x.shape[1] < 24 else F.avg_pool2d(x, 2))


@hostile("scaled_by_width", named=False, constant="activations are divided by their width")
class ScaledByWidth(Bare):
    def __init__(self) -> None:
        super().__init__(16, 24)
        self.conv = unit(16, 24)

    def middle(self, x: Tensor) -> Tensor:
        x = self.conv(x / x.shape[1] ** 0.5)
        return x * (4 / x.size(1))


@hostile("centred_over_channels", named=False, constant="the mean over channels is subtracted")
class CentredOverChannels(Bare):
    def __init__(self) -> None:
        super().__init__(24, 12)
        self.conv = unit(24, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(x - x.mean(dim=1, keepdim=True))


@hostile("softmax_over_channels", named=False)
class SoftmaxOverChannels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.last = unit(3, 20), unit(20, 12, act=False), unit(12, 16)
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(4 * torch.softmax(self.conv(self.stem(x)), 1))).log_softmax(1)


@hostile("sum_over_channels", named=False)
class SumOverChannels(nn.Module):
    """The last channels are summed without any weight that could be zeroed."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 16), unit(16, 20), unit(20, 12, act=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).square().sum(1)
