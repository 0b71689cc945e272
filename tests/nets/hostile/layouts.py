"""Patches, other layouts and other numbers of dimensions."""

# A forward here is what users write, `return self.head(x)`, and torch types a module call as Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import Bare, hostile, tensors, unit


@hostile("patch_embedding", named=False)
class PatchEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.token, self.position = nn.Parameter(torch.empty(1, 1, 16)), nn.Parameter(torch.empty(1, 5, 16))
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(48, 16)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        x = x + self.fc2(F.gelu(self.fc1(self.norm(x))))
        return self.fc(x[:, 0] + x[:, 1:].mean(1))


@hostile("mixer_over_positions", named=False)
class Mixer(nn.Module):
    """Linear layers along positions leave channels alone; an affine per channel stands for the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 20, 2, stride=2)
        self.scale, self.shift = nn.Parameter(torch.empty(20)), nn.Parameter(torch.empty(20))
        self.mix, self.fc1, self.fc2 = nn.Linear(16, 16), nn.Linear(20, 32), nn.Linear(32, 20)
        self.fc = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.mix((x * self.scale + self.shift).transpose(1, 2)).transpose(1, 2)
        x = x + self.fc2(F.relu(self.fc1(x)))
        return self.fc(x.mean(1))


@hostile("linear_over_width", named=False)
class LinearOverWidth(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.columns, self.conv = nn.Linear(8, 6), unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(F.relu(self.columns(x)))


@hostile("convolution_across_channels", named=False, constant="a convolution runs along the channel axis")
class ConvolutionAcrossChannels(Bare):
    """Height and channels change places, so a kernel slides over neighbouring channels."""

    def __init__(self) -> None:
        super().__init__(24, 12)
        self.across, self.conv = unit(8, 8), unit(24, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(self.across(x.transpose(1, 2)).transpose(1, 2))


@hostile("channels_last_input", tensors((8, 8, 3)), named=False)
class ChannelsLastInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 12), unit(12, 20))
        self.fc1, self.fc2 = nn.Linear(20, 16), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x.permute(0, 3, 1, 2)).movedim(1, -1)
        return self.fc2(F.relu(self.fc1(x)))


@hostile("conv1d", tensors((3, 16)), named=False)
class Conv1d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv1d(3, 12, 3, padding=1), nn.BatchNorm1d(12)
        self.conv2, self.norm2 = nn.Conv1d(12, 20, 3, stride=2, padding=1, groups=2), nn.BatchNorm1d(20)
        self.pool, self.fc = nn.AdaptiveMaxPool1d(3), nn.Linear(60, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        return self.fc(self.pool(F.relu(self.norm2(self.conv2(x)))).flatten(1))


@hostile("conv3d", tensors((2, 4, 8, 8)), named=False)
class Conv3d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv3d(2, 10, 3, padding=1, bias=False), nn.BatchNorm3d(10)
        self.conv2, self.norm2 = nn.Conv3d(10, 14, 3, stride=2, padding=1), nn.BatchNorm3d(14)
        self.fc = nn.Linear(14, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool3d(F.relu(self.norm1(self.conv1(x))), (1, 2, 2))
        return self.fc(F.relu(self.norm2(self.conv2(x))).mean((2, 3, 4)))
