"""Binary weights: minus one or one, learned by a latent weight that stays within bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from penjing.core.registry import register
from penjing.packing.levels import Levels
from penjing.quantizers.base import Weights, sign
from penjing.quantizers.binary import Binary, as_levels, sloped


@register("quantizer")
@dataclass(frozen=True)
class binaryconnect(Binary):  # noqa: N801  (registered under its own name)
    """Round weights to -H and H, and keep the latent weight within them after each step.

    H is the bound of Glorot's start, sqrt(1.5 / (fan in + fan out)), or 1 without ``glorot``. Where a normalisation
    follows, both train alike; where none does, weights of size 1 make outputs many times larger. ``stochastic`` draws
    the signs while training, by the latent weight; batch norms must be recalibrated then, as they saw the draws.

    The paper multiplies learning rates by 1 / Glorot's bound for Adam, by its square for SGD. Here the latent weight
    is held in units that do so by themselves: it stays within Glorot's bound whatever H is, and the gradient that
    reaches it is that of the binary weight times H / the bound.

    Paper: Courbariaux, Bengio, David, BinaryConnect, NIPS 2015, eqs. 1 to 3 and algorithm 1.
    Differs: what was trained by draws is evaluated and stored by the signs; the paper keeps its real weights, which
    are no bits. A trained weight is stretched to the mean size of the paper's start, uniform within the bounds. Fans
    are counted as by torch: a grouped layer's fan out is that of all groups.
    """

    stochastic: bool = False
    glorot: bool = True

    def weights(self, shape: tuple[int, ...], bits: int) -> Connected:
        """Return what rounds a weight."""
        bound = glorot_bound(shape)
        return Connected(bits, bound, bound if self.glorot else 1.0, self.stochastic)


class Connected(Weights):
    """Signs times ``size``; the latent weight stays within ``bound``."""

    def __init__(self, bits: int, bound: float, size: float, stochastic: bool = False) -> None:
        super().__init__(bits)
        self.bound, self.size, self.stochastic = bound, size, stochastic

    def start(self, weight: Tensor) -> Tensor:
        """Return the weight, stretched to half of the bound in the mean and cut there."""
        weight = weight.detach()
        mean = weight.abs().mean()
        stretched = weight * (self.bound / 2 / mean) if mean > 0 else weight.clone()
        return stretched.clamp_(-self.bound, self.bound)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the binary weight; one drawn by chance only while training."""
        latent = weight.detach()
        if self.stochastic and self.training:
            signs = sign((latent / self.bound + 1) / 2 - torch.rand_like(latent))
        else:
            signs = sign(latent)
        return sloped(weight, signs * self.size, latent.new_tensor(self.size / self.bound))

    def levels(self, weight: Tensor) -> Levels:
        """Return the signs, and one scale."""
        return as_levels(weight, torch.tensor(self.size))

    @torch.no_grad()
    def after_step(self, weight: nn.Parameter, progress: float) -> None:
        """Keep the latent weight within its bound, or it would grow without changing anything."""
        weight.clamp_(-self.bound, self.bound)


def glorot_bound(shape: tuple[int, ...]) -> float:
    """Return sqrt(1.5 / (fan in + fan out)) of a weight [out, in, ...].

    >>> glorot_bound((4, 2))
    0.5
    """
    out, into, taps = shape[0], shape[1], math.prod(shape[2:])
    return math.sqrt(1.5 / (taps * (into + out)))
