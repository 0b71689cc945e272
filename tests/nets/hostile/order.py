"""Rolled, flipped and repeated channels."""

# A forward here is what users write, `return self.head(x)`, and torch types a module call as Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import Bare, hostile, unit


@hostile("roll_space", named=False, mode="space")
@hostile("roll_channels", named=False, constant="channels are rolled by a literal", mode="channels")
class Roll(Bare):
    def __init__(self, mode: str) -> None:
        super().__init__(16, 12)
        self.mode = mode
        self.conv = unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        rolled = torch.roll(x, (1, -2), (2, 3)) if self.mode == "space" else torch.roll(x, 1, 1)
        return self.conv(x + rolled)


@hostile("flip_channels", named=False, add=False)
@hostile("flip_channels_and_add", named=False, add=True)
class FlipChannels(Bare):
    """Added to its mirror image, each channel is tied to the one opposite."""

    def __init__(self, add: bool) -> None:
        super().__init__(16, 12)
        self.add = add
        self.conv = unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(x + x.flip(1) if self.add else x.flip(1))


@hostile("repeat_channels", named=False, mode="repeat")
@hostile("tile_channels", named=False, mode="tile")
@hostile("repeat_interleave_channels", named=False, mode="interleave")
class RepeatChannels(Bare):
    def __init__(self, mode: str) -> None:
        super().__init__(12, 16)
        self.mode = mode
        self.conv = unit(24, 16)

    def middle(self, x: Tensor) -> Tensor:
        if self.mode == "repeat":
            x = x.repeat(1, 2, 1, 1)
        elif self.mode == "tile":
            x = torch.tile(x, (2, 1, 1))
        else:
            x = torch.repeat_interleave(x, 2, dim=1)
        return self.conv(x)


@hostile("unbind", named=False)
class Unbind(Bare):
    def __init__(self) -> None:
        super().__init__(24, 12)
        self.conv = unit(12, 12)

    def middle(self, x: Tensor) -> Tensor:
        a, b = torch.unflatten(x, 1, (2, -1)).unbind(1)
        return self.conv(a * torch.sigmoid(b))


@hostile("unfold", named=False)
class Unfold(Bare):
    def __init__(self) -> None:
        super().__init__(12, 12)
        self.weight, self.last = nn.Parameter(torch.empty(20, 108)), unit(20, 12)

    def middle(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        patches = F.unfold(x, 3, padding=1)
        return self.last(F.relu((self.weight @ patches).view(n, -1, h, w)))
