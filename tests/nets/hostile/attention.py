"""Attention over channels, positions and heads."""

# A forward here is what users write, `return self.head(x)`, and torch types a module call as Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import Bare, hostile, pooled, unit


@hostile("convolutional_block_attention", named=False, constant="mean and maximum over the channels")
class BlockAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 12)
        self.conv = unit(12, 20)
        self.squeeze, self.excite = nn.Linear(20, 8), nn.Linear(8, 20)
        self.spatial = nn.Conv2d(2, 1, 3, padding=1)
        self.last = unit(20, 12)
        self.head = pooled(12)

    def gate(self, x: Tensor) -> Tensor:
        return self.excite(F.relu(self.squeeze(x)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.stem(x))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3))) + self.gate(x.amax((2, 3))))[:, :, None, None]
        maps = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return self.head(self.last(x * torch.sigmoid(self.spatial(maps))))


@hostile("efficient_channel_attention", named=False, constant="a convolution runs along the channel axis")
class EfficientAttention(Bare):
    def __init__(self) -> None:
        super().__init__(24, 12)
        self.neighbours, self.conv = nn.Conv1d(1, 1, 3, padding=1), unit(24, 12)

    def middle(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.neighbours(x.mean((2, 3)).unsqueeze(1)))
        return self.conv(x * gate.transpose(1, 2).unsqueeze(-1))


@hostile("coordinate_attention", named=False)
class CoordinateAttention(Bare):
    """Row and column means are joined along space, squeezed together, and parted again."""

    def __init__(self) -> None:
        super().__init__(20, 12)
        self.squeeze, self.rows, self.columns = unit(20, 8, 1), nn.Conv2d(8, 20, 1), nn.Conv2d(8, 20, 1)
        self.conv = unit(20, 12)

    def middle(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        both = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).permute(0, 1, 3, 2)], 2)
        rows, columns = torch.split(self.squeeze(both), [h, w], 2)
        gate = torch.sigmoid(self.rows(rows)) * torch.sigmoid(self.columns(columns.permute(0, 1, 3, 2)))
        return self.conv(x * gate)


@hostile("non_local_block", named=False, scaled=False)
@hostile("attention_scaled_by_shape", named=False, scaled=True)
class NonLocal(nn.Module):
    """Attention between positions. Scaled by the queries' width, it changes with every removed query."""

    def __init__(self, scaled: bool) -> None:
        super().__init__()
        self.scaled = scaled
        self.stem = unit(3, 16)
        self.theta, self.phi, self.g = (nn.Conv2d(16, width, 1) for width in (8, 8, 20))
        self.back = nn.Conv2d(20, 16, 1)
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        q, k, v = self.theta(x).flatten(2), self.phi(x).flatten(2), self.g(x).flatten(2)
        scores = torch.matmul(q.transpose(1, 2), k)
        scores = scores * q.shape[1] ** -0.5 if self.scaled else scores * 0.2
        y = torch.matmul(v, scores.softmax(-1).transpose(1, 2))
        return self.head(x + self.back(y.view(*y.shape[:2], *x.shape[2:])))


@hostile("attention_over_channels", named=False)
class ChannelAttention(nn.Module):
    """Channels attend to channels: the softmax runs over their Gram matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.last = unit(3, 20), unit(20, 12), unit(12, 16)
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.stem(x))
        flat = x.flatten(2)
        weights = torch.softmax(flat @ flat.transpose(1, 2) / 16, -1)
        return self.head(self.last(x + (weights @ flat).view_as(x)))


@hostile("attention_heads_by_hand", named=False, kind="hand")
@hostile("attention_builtin", named=False, kind="builtin")
class HandAttention(nn.Module):
    """Heads are literal, their width is computed; the built-in form scales by that width."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.stem = unit(3, 16, stride=2)
        self.qkv, self.project = nn.Linear(16, 72), nn.Linear(24, 16)
        self.fc1, self.fc2 = nn.Linear(16, 32), nn.Linear(32, 16)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, 4, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if self.kind == "hand":
            y = ((q @ k.transpose(-2, -1)) * 0.4).softmax(-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        x = x + self.project(y.transpose(1, 2).reshape(n, t, -1))
        x = x + self.fc2(F.gelu(self.fc1(x)))
        return self.fc(x.mean(1))


@hostile("attention_module", named=False, constant="nn.MultiheadAttention stores its width")
class AttentionModule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 12)
        self.embed, self.attention = unit(12, 24, stride=2), nn.MultiheadAttention(24, 4, batch_first=True)
        self.fc = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(self.stem(x)).flatten(2).transpose(1, 2)
        return self.fc((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))
