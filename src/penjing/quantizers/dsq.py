"""Rounding whose gradient is that of a soft staircase, with learned ends and softness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.core.registry import register
from penjing.packing.levels import Levels
from penjing.quantizers.base import Quantizer, Reads, Weights, straight_through
from penjing.quantizers.observers import some, upper
from penjing.quantizers.uniform import Activations, Grid, checked, finite, input_bits, slowed, within

SOFTEST, HARDEST, NARROWEST = 0.5, 1e-3, 1e-6


@register("quantizer")
@dataclass(frozen=True)
class dsq(Quantizer):  # noqa: N801  (registered under its own name)
    """Round between learned ends; gradients are those of one tanh a step, whose softness is learned as well.

    ``activations`` are bits, or ``same`` as the weights'; ``alpha`` is what softness begins with, 0 being the hard
    staircase. Ends begin with those of the weights, and of a ``share`` of what a layer reads; ``start`` of ``mse``
    moves them inwards to where the squared error is least, which is nearer before training and further after it.

    Paper: Gong et al., Differentiable Soft Quantization, ICCV 2019, eqs. 3 to 9. Differs: gradients of ends and
    softness, sums over all numbers, are scaled as those of learned steps (``lsq``); where no sample is negative the
    lower end stays 0, so that zeros stay zeros.
    """

    widths: ClassVar[tuple[int, ...]] = tuple(range(1, 9))
    usual: ClassVar[int] = 2

    activations: Activations = "same"
    alpha: float = 0.2
    share: float = 0.999
    start: Literal["mse", "range"] = "range"

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        checked(self.name, self.activations, self.widths)
        if not HARDEST <= self.alpha <= SOFTEST:
            raise PlanError(f"dsq: alpha is between {HARDEST} and {SOFTEST}; got {self.alpha}.")
        if not 0.5 < self.share <= 1:
            raise PlanError(f"dsq: share is more than half, at most 1; got {self.share}.")

    def weights(self, shape: tuple[int, ...], bits: int) -> SoftWeights:
        """Return what rounds a weight."""
        return SoftWeights(within(self.name, bits, self.widths), self)

    def reads(self, channels: int, bits: int) -> SoftReads | None:
        """Return what rounds what a layer reads."""
        wanted = input_bits(self.activations, bits)
        return None if wanted is None else SoftReads(wanted, self)


class Staircase(nn.Module):
    """The two ends and the softness of one quantizer, and what they make of numbers."""

    def __init__(self, bits: int, alpha: float, search: bool = True) -> None:
        super().__init__()
        self.search = search
        self.cells = 2**bits - 1
        self.low = nn.Parameter(torch.tensor(-1.0))
        self.high = nn.Parameter(torch.tensor(1.0))
        self.alpha = nn.Parameter(torch.tensor(alpha))

    @torch.no_grad()
    def start(self, numbers: Tensor, share: float) -> None:
        """Set the ends to those of a share of the numbers, [1, n], at either side."""
        low, high = -upper(-numbers, share)[0], upper(numbers, share)[0]
        if not bool(high > low):  # all the same: 0 and that, or any
            low, high = low.clamp_max(0), high.clamp_min(0)
        self.low.copy_(low)
        self.high.copy_(high if bool(high > low) else low + 1)
        if self.search:
            self._narrow(some(numbers))

    def _narrow(self, numbers: Tensor) -> None:
        """Move both ends towards 0 by the factor of the least squared error."""
        low, high = self.low.clone(), self.high.clone()
        found = dict[float, float]()
        for percent in range(100, 5, -5):
            self.low.copy_(low * percent / 100)
            self.high.copy_(high * percent / 100)
            found[percent] = float((self.values(self.steps(numbers)) - numbers).square().mean())
        best = min(found, key=lambda percent: found[percent])
        self.low.copy_(low * best / 100)
        self.high.copy_(high * best / 100)

    def steps(self, x: Tensor) -> Tensor:
        """Return the number of the nearest step, 0 to 2 ** bits - 1."""
        steps: Tensor = ((x.detach() - self.low.detach()) / self.width).round().clamp(0, self.cells)
        return steps

    def values(self, steps: Tensor) -> Tensor:
        """Return what steps stand for."""
        values: Tensor = self.low.detach() + steps * self.width
        return values

    @property
    def width(self) -> Tensor:
        """The width of a step."""
        width: Tensor = (self.high - self.low) / self.cells
        return width.detach()

    def forward(self, x: Tensor, count: int) -> Tensor:
        """Return x rounded to the nearest step, with the gradient of ``soft``; of ``count`` numbers, the ends'."""
        hard = self.values(self.steps(x))
        if not torch.is_grad_enabled():
            return hard
        scale = (count * self.cells) ** -0.5
        low, high, alpha = (slowed(one, scale) for one in (self.low, self.high, self.alpha))
        return straight_through(soft(x, low, high, alpha, self.cells), hard)

    @torch.no_grad()
    def tidy(self) -> None:
        """Keep the ends apart, and the softness within its range."""
        self.alpha.clamp_(HARDEST, SOFTEST)
        self.high.clamp_(min=self.low + NARROWEST)


class SoftWeights(Weights):
    """Weights rounded between learned ends, which begin at the smallest and the largest."""

    def __init__(self, bits: int, options: dsq) -> None:
        super().__init__(bits)
        self.stairs = Staircase(bits, options.alpha, options.start == "mse")

    def start(self, weight: Tensor) -> Tensor:
        """Set the ends."""
        self.stairs.start(weight.detach().reshape(1, -1), 1.0)
        return super().start(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the rounded weight."""
        found: Tensor = self.stairs(weight, weight.numel())
        return found

    def levels(self, weight: Tensor) -> Levels:
        """Return the numbers of the steps."""
        steps = self.stairs.steps(weight)
        table = self.stairs.values(torch.arange(self.stairs.cells + 1).to(weight)).float().cpu()
        return Levels(steps.flatten().byte().cpu(), table, torch.tensor(1.0), tuple(weight.shape), self.bits)

    def after_step(self, weight: nn.Parameter, progress: float) -> None:
        """Keep what is learned within its range."""
        self.stairs.tidy()


class SoftReads(Reads):
    """What a layer reads, rounded between learned ends."""

    signed: Tensor

    def __init__(self, bits: int, options: dsq) -> None:
        super().__init__(bits)
        self.share = options.share
        self.stairs = Staircase(bits, options.alpha, options.start == "mse")
        self.register_buffer("signed", torch.tensor(True))

    @torch.no_grad()
    def start(self, samples: Tensor) -> None:
        """Set the ends.

        Raises: PlanError for samples that are not finite.
        """
        finite(samples)
        self.stairs.start(samples.reshape(1, -1), self.share)
        self.signed.fill_(bool((samples < 0).any()))
        self.after_step(0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the rounded input."""
        found: Tensor = self.stairs(x, x[0].numel())
        return found

    def grid(self) -> Grid:
        """Return the numbers that the layer may read."""
        step = self.stairs.width
        return Grid(step, torch.zeros_like(step), torch.full_like(step, self.stairs.cells), self.stairs.low.detach())

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Keep what is learned within its range."""
        self.stairs.low.mul_(self.signed)
        self.stairs.tidy()


def soft(x: Tensor, low: Tensor, high: Tensor, alpha: Tensor, cells: int) -> Tensor:
    """Return the soft staircase of eqs. 3 to 7 between two ends; softness and ends broadcast against x."""
    width = (high - low) / cells
    cell = ((x - low) / width).detach().floor().clamp(0, cells - 1)
    centre = low + (cell + 0.5) * width
    steep = torch.log(2 / alpha - 1) / width
    phi = torch.tanh(steep * (x - centre)) / (1 - alpha)
    return torch.where(x < low, low, torch.where(x > high, high, low + width * (cell + (phi + 1) / 2)))
