"""Normalisations."""

# A forward here is what users write, `return self.head(x)`, and torch types a module call as Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import Bare, hostile, pooled, unit


@hostile("group_norm_8", named=False, groups=8)
@hostile("group_norm_1", named=False, constant="one statistic over all channels", groups=1)
class GroupNorm(nn.Module):
    """Statistics join the channels of a group: it can go only as a whole."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.stem = unit(3, 12)
        self.conv1, self.norm1 = nn.Conv2d(12, 32, 3, padding=1), nn.GroupNorm(groups, 32)
        self.conv2, self.norm2 = nn.Conv2d(32, 24, 3, padding=1), nn.GroupNorm(groups, 24)
        self.head = pooled(24)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(self.stem(x))))
        return self.head(F.relu(self.norm2(self.conv2(x))))


@hostile("instance_norm", named=False)
class InstanceNorm(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.conv, self.last = nn.Conv2d(16, 20, 3, padding=1), unit(20, 12)
        self.norm1, self.norm2 = nn.InstanceNorm2d(20, affine=True), nn.InstanceNorm2d(12)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.norm2(self.last(F.relu(self.norm1(self.conv(x))))) + 0.5)


@hostile("batchnorm_variants", named=False)
class NormVariants(Bare):
    """BN without affine, and BN without running statistics."""

    def __init__(self) -> None:
        super().__init__(16, 12)
        self.conv1, self.norm1 = nn.Conv2d(16, 20, 3, padding=1), nn.BatchNorm2d(20, affine=False)
        self.conv2, self.norm2 = nn.Conv2d(20, 12, 1), nn.BatchNorm2d(12, track_running_stats=False)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


@hostile("convnext_block", named=False)
class ConvNeXt(nn.Module):
    """The trunk is normalised over its channels, channels last; only the fourfold inside is free."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 2, stride=2)
        self.depthwise, self.norm = nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.LayerNorm(12)
        self.fc1, self.fc2 = nn.Linear(12, 48), nn.Linear(48, 12)
        self.gamma = nn.Parameter(torch.empty(12))
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.fc2(F.gelu(self.fc1(y)))
        return self.head(x + y.permute(0, 3, 1, 2))


@hostile("response_norm", named=False)
class ResponseNorm(nn.Module):
    """Each channel is divided by the mean response of all (ConvNeXt v2)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.expand, self.reduce = unit(3, 16), unit(16, 24, 1), unit(24, 16, 1)
        self.gamma, self.beta = nn.Parameter(torch.empty(1, 24, 1, 1)), nn.Parameter(torch.empty(1, 24, 1, 1))
        self.last = unit(16, 20)
        self.head = pooled(20)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.expand(x)
        energy = y.square().sum((2, 3), keepdim=True).sqrt()
        y = y + self.gamma * (y * energy / (energy.mean(1, keepdim=True) + 1e-6)) + self.beta
        return self.head(self.last(x + self.reduce(y)))


@hostile("local_response_norm", named=False, constant="normalised over neighbouring channels")
class LocalResponseNorm(Bare):
    def __init__(self) -> None:
        super().__init__(16, 20)
        self.conv = unit(16, 20)
        self.norm = nn.LocalResponseNorm(5, alpha=1.0)

    def middle(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(self.norm(x)))
