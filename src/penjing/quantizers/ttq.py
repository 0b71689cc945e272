"""Ternary weights whose two scales are learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.core.registry import register
from penjing.packing.levels import Levels
from penjing.quantizers.base import Quantizer, Weights
from penjing.quantizers.uniform import slowed

LEAST_SCALE = 1e-4


@register("quantizer")
@dataclass(frozen=True)
class ttq(Quantizer):  # noqa: N801  (registered under its own name)
    """Round weights to -a, 0 and b, both learned: zero where they are below ``delta`` times the largest.

    Paper: Zhu et al., Trained Ternary Quantization, ICLR 2017, eqs. 6 to 9. Differs: the scales begin at the mean size
    of the weights that they stand for, latent weights keep the size that they have, and the gradients of the scales,
    sums over a layer, are divided by the root of its number of weights: without it large layers diverge.
    """

    widths: ClassVar[tuple[int, ...]] = (2,)

    delta: float = 0.05

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        if not 0 < self.delta < 1:
            raise PlanError(f"ttq: delta is the share of the largest size below which weights are 0; got {self.delta}.")

    def weights(self, shape: tuple[int, ...], bits: int) -> TrainedTernary:
        """Return what rounds a weight."""
        if bits != 2:
            raise PlanError(f"ttq: weights have 2 bits; got {bits!r}.")
        return TrainedTernary(bits, self)


class TrainedTernary(Weights):
    """Ternary weights with two learned scales."""

    def __init__(self, bits: int, options: ttq) -> None:
        super().__init__(bits)
        self.options = options
        self.positive = nn.Parameter(torch.tensor(1.0))
        self.negative = nn.Parameter(torch.tensor(1.0))

    @torch.no_grad()
    def start(self, weight: Tensor) -> Tensor:
        """Set the scales."""
        above, below = self._sets(weight)
        for scale, chosen in ((self.positive, above), (self.negative, below)):
            mean = (weight.abs() * chosen).sum() / chosen.sum().clamp_min(1)
            scale.copy_(mean.clamp_min(LEAST_SCALE))
        return super().start(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the ternary weight; latent ones see the gradient times the scale of their set, or 1 in the middle."""
        above, below = self._sets(weight)
        one = torch.ones_like(self.positive)
        positive, negative = (slowed(scale, weight.numel() ** -0.5) for scale in (self.positive, self.negative))
        ternary = torch.where(above, positive, torch.where(below, -negative, 0.0))
        seen = weight * torch.where(above, self.positive, torch.where(below, self.negative, one)).detach()
        return ternary + (seen - seen.detach())

    def levels(self, weight: Tensor) -> Levels:
        """Return codes of -a, 0 and b."""
        above, below = self._sets(weight)
        codes = 1 + above.byte() - below.byte()
        table = torch.stack([-self.negative, torch.zeros_like(self.negative), self.positive]).detach().float().cpu()
        return Levels(codes.flatten().cpu(), table, torch.tensor(1.0), tuple(weight.shape), 2)

    @torch.no_grad()
    def after_step(self, weight: nn.Parameter, progress: float) -> None:
        """Keep the scales above zero."""
        self.positive.clamp_(min=LEAST_SCALE)
        self.negative.clamp_(min=LEAST_SCALE)

    def _sets(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return which weights are above the threshold, and which below its opposite."""
        weight = weight.detach()
        cut = self.options.delta * weight.abs().max()
        return weight > cut, weight < -cut
