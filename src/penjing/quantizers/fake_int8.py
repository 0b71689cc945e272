"""What a file in int8 will round, while the network trains: not a method of its own, so it is not registered.

A scale a channel makes it no matter whether batch norm is folded before rounding, as in the file, or after it: folding
multiplies a filter, and its scale with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from penjing.packing.levels import Levels
from penjing.quantizers.base import Quantizer, Reads, Weights, straight_through
from penjing.quantizers.uniform import LEAST, column, finite, rows, written

MOMENTUM = 0.05
"""How much of a range is that of the newest batch."""

SETTLED = 0.75
"""The share of a training after which ranges stay, so that weights can adapt to them."""


@dataclass(frozen=True)
class fake_int8(Quantizer):  # noqa: N801  (called as registered ones are)
    """Round weights to a scale a filter, and what layers read to 256 levels of a range that follows the batches.

    ``highest`` is the greatest code of a weight, the lowest being its negative.

    Paper: Jacob et al., Quantization and Training of Neural Networks, CVPR 2018, section 3. Differs: weights have a
    scale a filter.
    """

    widths: ClassVar[tuple[int, ...]] = (8,)

    highest: int = 127

    def weights(self, shape: tuple[int, ...], bits: int) -> FilterWeights:
        """Return what rounds a weight."""
        return FilterWeights(bits, self.highest)

    def reads(self, channels: int, bits: int) -> RangeReads:
        """Return what rounds what a layer reads."""
        return RangeReads(bits)


class FilterWeights(Weights):
    """Weights whose greatest size, filter by filter, is the greatest code."""

    def __init__(self, bits: int, highest: int) -> None:
        super().__init__(bits)
        self.highest = highest

    def forward(self, weight: Tensor) -> Tensor:
        """Return the rounded weight."""
        codes, scale = self._rounded(weight.detach())
        return straight_through(weight, codes * scale)

    def levels(self, weight: Tensor) -> Levels:
        """Return the codes and the scales."""
        codes, scale = self._rounded(weight.detach())
        return written(codes, -self.highest, self.highest, scale.flatten(), self.bits)

    def _rounded(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        size = rows(weight, True).abs().amax(1)
        scale = column(torch.where(size > 0, (size / self.highest).clamp_min(LEAST), 1.0), weight)
        return (weight / scale).round(), scale


class RangeReads(Reads):
    """What a layer reads, rounded to levels of a range that holds 0."""

    moving: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.register_buffer("moving", torch.tensor(True))
        self.register_buffer("low", torch.tensor(0.0))
        self.register_buffer("high", torch.tensor(1.0))

    def start(self, samples: Tensor) -> None:
        """Set the range.

        Raises: PlanError for samples that are not finite.
        """
        finite(samples)
        self.low.copy_(samples.amin().clamp_max(0))
        self.high.copy_(samples.amax().clamp_min(0))

    def forward(self, x: Tensor) -> Tensor:
        """Return the rounded input; what is beyond the range has no gradient."""
        if self.training and self.moving:
            with torch.no_grad():
                self.low.lerp_(x.amin().clamp_max(0).to(self.low.dtype), MOMENTUM)
                self.high.lerp_(x.amax().clamp_min(0).to(self.high.dtype), MOMENTUM)
        step = ((self.high - self.low) / (2**self.bits - 1)).clamp_min(LEAST).to(x.dtype)
        zero = (-self.low / step).round()
        clipped = torch.minimum(torch.maximum(x, -zero * step), (2**self.bits - 1 - zero) * step)
        return straight_through(clipped, (clipped.detach() / step).round() * step)

    def after_step(self, progress: float) -> None:
        """Let the range stay once most of the training is done."""
        self.moving.fill_(progress < SETTLED)
