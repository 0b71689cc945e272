"""Splits, chunks and slices of channels."""

# A forward here is what users write, `return self.head(x)`, and torch types a module call as Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn

from .case import Bare, hostile, pooled, unit


@hostile("uneven_split_by_shape", literal=False)
@hostile("uneven_split_literal", constant="literal split sizes", literal=True)
class UnevenSplit(nn.Module):
    def __init__(self, literal: bool) -> None:
        super().__init__()
        self.literal = literal
        self.stem = unit(3, 24)
        self.small, self.large = unit(6, 10), unit(18, 14, 1)
        self.join = unit(24, 12, 1)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        c = x.shape[1]
        a, b = torch.split(x, [6, 18] if self.literal else [c // 4, 3 * c // 4], dim=1)
        return self.head(self.join(torch.cat([self.large(b), self.small(a)], 1)))


@hostile("chunk_halves")
class ChunkHalves(Bare):
    def __init__(self) -> None:
        super().__init__(20, 12)
        self.left, self.right = unit(10, 14), unit(10, 14, 1)
        self.join = unit(14, 12)

    def middle(self, x: Tensor) -> Tensor:
        a, b = torch.chunk(x, 2, dim=1)
        return self.join(self.left(a) + self.right(b))


@hostile("chunk_thirds_of_20")
class ChunkThirds(Bare):
    """Chunks of 7, 7 and 6 channels."""

    def __init__(self) -> None:
        super().__init__(20, 16)
        self.convs = nn.ModuleList(unit(size, 8) for size in (7, 7, 6))
        self.join = unit(24, 16, 1)

    def middle(self, x: Tensor) -> Tensor:
        pieces = [conv(piece) for conv, piece in zip(self.convs, x.chunk(3, 1), strict=True)]
        return self.join(torch.cat(pieces, 1))


@hostile("channel_slices_literal", constant="literal channel slices", mode="literal")
@hostile("channel_slices_negative", constant="literal channel slices", mode="negative")
@hostile("channel_slices_by_shape", mode="shape")
@hostile("channel_slices_strided", mode="strided")
class ChannelSlices(Bare):
    def __init__(self, mode: str) -> None:
        super().__init__(24, 12)
        self.mode = mode
        sizes = {"literal": (16, 8), "negative": (16, 8)}.get(mode, (12, 12))
        self.first, self.second = unit(sizes[0], 14), unit(sizes[1], 10, 1)
        self.join = unit(24, 12)

    def middle(self, x: Tensor) -> Tensor:
        if self.mode == "literal":
            a, b = x[:, :16], x[:, 16:]
        elif self.mode == "negative":
            a, b = x[:, :-8], x[:, -8:]
        elif self.mode == "shape":
            half = x.shape[1] // 2
            a, b = x[:, :half], x[:, half:]
        else:
            a, b = x[:, ::2], x[:, 1::2]
        return self.join(torch.cat([self.first(a), self.second(b)], 1))


@hostile("overlapping_slices")
class OverlappingSlices(Bare):
    """Both convolutions read the middle half; sizes come from the shape."""

    def __init__(self) -> None:
        super().__init__(20, 12)
        self.first, self.second = unit(15, 12), unit(15, 12, 1)

    def middle(self, x: Tensor) -> Tensor:
        quarter = x.shape[1] // 4
        return self.first(x[:, :-quarter]) + self.second(x[:, quarter:])


@hostile("first_channel_as_gate", named=False)
class FirstChannelGate(Bare):
    """Channel 0 has a meaning of its own and must stay the first."""

    def __init__(self) -> None:
        super().__init__(17, 12, act=False)
        self.conv = unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(x[:, 1:] * torch.sigmoid(x.select(1, 0)).unsqueeze(1))


@hostile("channels_by_literal_list", named=False, constant="literal list of channels")
class ListedChannels(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.conv = unit(6, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(x[:, [0, 3, 5, 7, 11, 15]])
