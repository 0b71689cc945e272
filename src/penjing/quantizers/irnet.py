"""IR-Net: balanced binary weights, and a gradient of the sign that turns from the identity's into its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.core.registry import register
from penjing.packing.levels import Levels
from penjing.quantizers.base import Reads, Weights, sign
from penjing.quantizers.binary import FullyBinary, as_levels, by_filter, sloped

ROUNDING = 1e-6
"""A filter that varies by less than this share of its largest weight is constant but for rounding."""


@register("quantizer")
@dataclass(frozen=True)
class irnet(FullyBinary):  # noqa: N801  (registered under its own name)
    """Round each filter, centred and divided by its deviation, to signs times a power of two; inputs to signs.

    The derivative that stands for the sign's is that of k tanh(t x): while training goes on, t grows from ``t_min``
    to ``t_max``, and k is the larger of 1 / t and 1. Without ``activations`` weights alone are rounded.

    Paper: Qin et al., Forward and Backward Information Retention for Accurate Binary Neural Networks, CVPR 2020,
    Libra-PB and EDE; t from 0.001 to 10 is of their released code.
    Differs: t grows with each step, not each epoch. A filter of one weight keeps its sign, uncentred; a constant
    filter of more becomes nothing or nearly so.
    """

    activations: bool = True
    t_min: float = 1e-3
    t_max: float = 10.0

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the options.
        """
        if not 0 < self.t_min < self.t_max < math.inf:
            raise PlanError(f"irnet: t grows from t_min, above 0, to t_max; got {self.t_min} and {self.t_max}.")

    def weights(self, shape: tuple[int, ...], bits: int) -> Libra:
        """Return what rounds a weight."""
        return Libra(bits, Estimate(self.t_min, self.t_max))

    def reads(self, channels: int, bits: int) -> Estimated | None:
        """Return the sign with the annealed gradient."""
        return Estimated(Estimate(self.t_min, self.t_max)) if self.activations else None


class Estimate(nn.Module):
    """The derivative of k tanh(t x), whose t and k follow the training."""

    t: Tensor
    k: Tensor

    def __init__(self, t_min: float, t_max: float) -> None:
        super().__init__()
        self.t_min, self.t_max = t_min, t_max
        self.register_buffer("t", torch.tensor(t_min))
        self.register_buffer("k", torch.tensor(max(1 / t_min, 1.0)))

    def forward(self, x: Tensor) -> Tensor:
        """Return k t (1 - tanh(t x) ** 2)."""
        return self.k * self.t * (1 - torch.tanh(self.t * x).square())

    def anneal(self, progress: float) -> None:
        """Set t and k by the share of the training done."""
        t = self.t_min * (self.t_max / self.t_min) ** min(max(progress, 0.0), 1.0)
        self.t.fill_(t)
        self.k.fill_(max(1 / t, 1.0))


class Libra(Weights):
    """Signs of balanced filters, times a power of two each."""

    def __init__(self, bits: int, estimate: Estimate) -> None:
        super().__init__(bits)
        self.estimate = estimate

    def forward(self, weight: Tensor) -> Tensor:
        """Return the binary weight; gradients go through the deviation and the mean as well."""
        balanced = _balanced(weight)
        found = balanced.detach()
        scale = _power(found)
        return sloped(balanced, sign(found) * scale, scale * self.estimate(found))

    def levels(self, weight: Tensor) -> Levels:
        """Return the signs of the balanced filters, and a scale each."""
        balanced = _balanced(weight.detach())
        return as_levels(balanced, _power(balanced))

    def after_step(self, weight: nn.Parameter, progress: float) -> None:
        """Anneal."""
        self.estimate.anneal(progress)


class Estimated(Reads):
    """Signs of what a layer reads, with the annealed gradient."""

    def __init__(self, estimate: Estimate) -> None:
        super().__init__(1)
        self.estimate = estimate

    def forward(self, x: Tensor) -> Tensor:
        """Return the signs."""
        return sloped(x, sign(x), self.estimate(x.detach())) if torch.is_grad_enabled() else sign(x)

    def after_step(self, progress: float) -> None:
        """Anneal."""
        self.estimate.anneal(progress)


def _balanced(weight: Tensor) -> Tensor:
    """Return each filter less its mean, divided by its unbiased deviation if it varies at all."""
    flat = weight.flatten(1)
    if flat.shape[1] == 1:
        return weight
    spread = flat.std(1)
    varies = spread > ROUNDING * flat.detach().abs().amax(1)
    centred = flat - flat.mean(1, keepdim=True)
    return (centred / torch.where(varies, spread, 1)[:, None]).view_as(weight)


def _power(balanced: Tensor) -> Tensor:
    """Return the power of two that is next to each filter's mean size, as seen by its logarithm; 0 for 0."""
    return by_filter(balanced.flatten(1).abs().mean(1).log2().round().exp2(), balanced)
