"""Recurrences, and what runs through other operators."""

# A forward here is what users write, `return self.head(x)`, and torch types a module call as Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import Bare, hostile, pooled, tensors, unit


@hostile("recurrent_over_rows", named=False)
class RecurrentOverRows(nn.Module):
    """An LSTM, an operator that no channel rule is likely to know, reads the pooled rows."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 16), unit(16, 20), unit(20, 10))
        self.lstm, self.fc = nn.LSTM(10, 8, batch_first=True), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.body(x).mean(3).transpose(1, 2)
        return self.fc(self.lstm(rows)[0][:, -1])


@hostile("convolutional_recurrence", named=False)
class ConvolutionalRecurrence(nn.Module):
    """Two steps of a convolutional LSTM: four gates in one convolution, the state fed back by a concat."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gates = unit(3, 12), nn.Conv2d(22, 40, 3, padding=1)
        self.head = pooled(10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        state = x.new_zeros(x.shape[0], self.gates.out_channels // 4, *x.shape[2:])
        memory = torch.zeros_like(state)
        for _ in range(2):
            i, f, o, g = self.gates(torch.cat([x, state], 1)).chunk(4, 1)
            memory = torch.sigmoid(f) * memory + torch.sigmoid(i) * torch.tanh(g)
            state = torch.sigmoid(o) * torch.tanh(memory)
        return self.head(state)


@hostile("channel_shift_in_space", named=False)
class ChannelShift(Bare):
    """A quarter of the channels moves left, a quarter right; sizes come from the shape."""

    def __init__(self) -> None:
        super().__init__(16, 12)
        self.conv = unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        fold = x.shape[1] // 4
        left, right = x[:, :fold].roll(1, 3), x[:, fold : 2 * fold].roll(-1, 3)
        return self.conv(torch.cat([left, right, x[:, 2 * fold :]], 1))


@hostile("adaptive_instance_norm", tensors((3, 8, 8), (7,)), named=False)
class AdaptiveInstanceNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.style = unit(3, 16), nn.Linear(7, 32)
        self.conv = unit(16, 12)
        self.head = pooled(12)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale, shift = self.style(style).view(x.shape[0], 2, -1, 1, 1).unbind(1)
        return self.head(self.conv(F.relu(F.instance_norm(self.stem(x)) * scale + shift)))


@hostile("frequency_filter", named=False)
class FrequencyFilter(Bare):
    """Features are filtered in the frequency domain, with complex numbers."""

    def __init__(self) -> None:
        super().__init__(16, 12)
        self.filter, self.conv = nn.Parameter(torch.empty(16, 8, 5)), unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(x, norm="ortho") * self.filter * 4
        return self.conv(torch.fft.irfft2(spectrum, s=x.shape[2:], norm="ortho"))


@hostile("grid_sampling", named=False)
class GridSampling(Bare):
    """A small branch predicts where the features are read (spatial transformer)."""

    def __init__(self) -> None:
        super().__init__(16, 12)
        self.locate, self.conv = pooled(16, 6), unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        grid = F.affine_grid(torch.tanh(self.locate(x)).view(-1, 2, 3), list(x.shape), align_corners=False)
        return self.conv(F.grid_sample(x, grid, align_corners=False))
