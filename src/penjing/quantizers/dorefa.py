"""Weights, activations and gradients in few bits, by fixed ranges."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.core.registry import register
from penjing.packing.levels import Levels
from penjing.quantizers.base import Quantizer, Weights, sign, straight_through
from penjing.quantizers.observers import least_error
from penjing.quantizers.uniform import LEAST, Activations, EvenReads, Grid, checked, input_bits, within, written


@register("quantizer")
@dataclass(frozen=True)
class dorefa(Quantizer):  # noqa: N801  (registered under its own name)
    """Round weights by their tanh, what layers read between 0 and a clip, and maybe gradients with noise.

    ``activations`` and ``gradients`` are bits, None for floats; ``same`` is as many as the weights'.
    ``clip`` is the largest number that a layer reads: 1 in the paper; None sets it for each layer by the least squared
    error.

    Paper: Zhou et al., DoReFa-Net, 2016, eqs. 8 to 12. Differs: the paper trains from the beginning. So that a trained
    network goes on, its weights of 2 bits or more are multiplied by one scale of the layer, set once by least squares,
    and inputs of both signs are clipped to [-clip, clip].
    """

    widths: ClassVar[tuple[int, ...]] = tuple(range(1, 9))

    activations: Activations = 2
    gradients: int | None = None
    clip: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        checked(self.name, self.activations, self.widths)
        if self.gradients is not None:
            within(self.name, self.gradients, self.widths, "gradients")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise PlanError(f"{self.name}: clip is the largest number that a layer reads; got {self.clip}.")

    def weights(self, shape: tuple[int, ...], bits: int) -> Squashed:
        """Return what rounds a weight."""
        return Squashed(within(self.name, bits, self.widths))

    def reads(self, channels: int, bits: int) -> ClippedReads | None:
        """Return what rounds what a layer reads."""
        wanted = input_bits(self.activations, bits)
        return None if wanted is None else ClippedReads(wanted, self.clip)

    def writes(self, bits: int) -> NoisyGradient | None:
        """Return what rounds the gradient that reaches a layer."""
        return None if self.gradients is None else NoisyGradient(self.gradients)


class Squashed(Weights):
    """Weights rounded by their tanh to odd multiples of scale / (2^k - 1); at one bit, signs times their mean size."""

    scale: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.top = 2**bits - 1
        self.register_buffer("scale", torch.tensor(1.0))

    @torch.no_grad()
    def start(self, weight: Tensor) -> Tensor:
        """Set the scale that is nearest to the trained weight."""
        if self.bits > 1:
            self.scale.fill_(1.0)
            unit = self(weight)
            best = (unit * weight).sum() / unit.square().sum().clamp_min(LEAST)
            self.scale.copy_(torch.where(best > LEAST, best, 1.0))
        return super().start(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the rounded weight."""
        if self.bits == 1:
            return straight_through(weight, sign(weight.detach()) * self._step(weight))
        squashed = weight.tanh()
        unit = squashed / squashed.abs().max().clamp_min(LEAST)
        return straight_through(unit * self.scale, self._odd(unit.detach()) * self._step(weight))

    def levels(self, weight: Tensor) -> Levels:
        """Return odd numbers, -(2^k - 1) to 2^k - 1, and what they are multiplied by."""
        if self.bits == 1:
            odd = sign(weight.detach())
        else:
            squashed = weight.detach().tanh()
            odd = self._odd(squashed / squashed.abs().max().clamp_min(LEAST))
        found = written((odd + self.top) / 2, 0, self.top, self._step(weight), self.bits)
        return Levels(found.codes, 2 * found.table - self.top, found.scale, found.shape, self.bits)

    def _odd(self, unit: Tensor) -> Tensor:
        """Return numbers of [-1, 1], times 2^k - 1, rounded to odd whole ones."""
        whole: Tensor = (self.top * (unit / 2 + 0.5)).round()
        odd: Tensor = 2 * whole - self.top
        return odd

    def _step(self, weight: Tensor) -> Tensor:
        step: Tensor = weight.detach().abs().mean() if self.bits == 1 else self.scale / self.top
        return step


class ClippedReads(EvenReads):
    """What a layer reads, clipped at a fixed number and rounded."""

    step: Tensor

    def __init__(self, bits: int, clip: float | None) -> None:
        super().__init__(bits, symmetric=True)
        self.clip = clip
        self.register_buffer("step", torch.tensor((1.0 if clip is None else clip) / (2**bits - 1)))

    def fit(self, samples: Tensor, lowest: int, highest: int) -> None:
        """Set the step."""
        best = least_error(samples, lowest, highest)[0]
        self.step.copy_(best if self.clip is None else torch.tensor(self.clip / highest))

    def forward(self, x: Tensor) -> Tensor:
        """Return the rounded input; nothing reaches what is clipped."""
        grid = self.grid()
        clipped = x.clamp(self.lowest * self.step, self.highest * self.step)
        return straight_through(clipped, grid.values(grid.codes(x.detach())))

    def grid(self) -> Grid:
        """Return the numbers that the layer may read."""
        return Grid(self.step, self.lowest, self.highest, torch.zeros_like(self.step))


class NoisyGradient(nn.Module):
    """Leaves what a layer writes as it is, and rounds its gradient with fresh noise while the network is trained."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, y: Tensor) -> Tensor:
        """Return y."""
        if not self.training:
            return y
        return cast(Tensor, _Noisy.apply(y, 2**self.bits - 1))  # type: ignore[no-untyped-call]


class _Noisy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, top: int) -> Tensor:
        ctx.top = top
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        noise = (torch.rand_like(grads[0]) - 0.5) / ctx.top
        return rounded_gradient(grads[0], ctx.top, noise), None


def rounded_gradient(grad: Tensor, top: int, noise: Tensor | float) -> Tensor:
    """Return a gradient [n, ...] rounded to ``top`` + 1 levels between plus and minus each picture's largest (eq. 12).

    The noise is uniform over one level, so that the mean of what comes out is the gradient.
    """
    largest = grad.abs().reshape(len(grad), -1).amax(1).reshape(-1, *[1] * (grad.dim() - 1))
    whole = 2 * largest
    level = (top * (grad / torch.where(whole > 0, whole, 1.0) + 0.5 + noise).clamp(0, 1)).round() / top
    return torch.where(largest > 0, whole * (level - 0.5), grad)
