"""Loss-aware binarisation: a scale that weighs each weight by how much the loss curves along it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from penjing.core.errors import PlanError
from penjing.core.registry import register
from penjing.packing.levels import Levels
from penjing.quantizers.base import Weights, sign, straight_through
from penjing.quantizers.binary import Binary, as_levels, by_filter

TINY = 1e-8
"""Adam's summand to the root of the second moment."""


@register("quantizer")
@dataclass(frozen=True)
class lab(Binary):  # noqa: N801  (registered under its own name)
    """Round weights to signs times sum(d |w|) / sum(d), where d is the root of the gradients' mean square, as Adam's.

    The mean forgets by ``beta2`` a backward pass and starts empty: until there are gradients, and where they are alike,
    the scale is the mean size. ``per_filter`` has one a filter.

    Paper: Hou, Yao, Kwok, Loss-aware Binarization of Deep Networks, ICLR 2017, the closed form
    of the proximal step, and algorithm 1.
    Differs: the paper's step is one of a proximal Newton method: it divides by that same d, and so is Adam's. Here the
    optimizer is that of the training. It is the paper's where that is Adam with this ``beta2``, a backward pass a step,
    and no penalty on weights; with any other only the scale is aware of the loss, not the step.
    """

    beta2: float = 0.999
    per_filter: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        if not 0 <= self.beta2 < 1:
            raise PlanError(f"lab: beta2 is the share of a mean that a step keeps, below 1; got {self.beta2}.")

    def weights(self, shape: tuple[int, ...], bits: int) -> LossAware:
        """Return what rounds a weight."""
        return LossAware(bits, shape, self)


class LossAware(Weights):
    """Signs with a scale by the curvature, which is gathered from the gradients that come back."""

    second: Tensor
    passes: Tensor

    def __init__(self, bits: int, shape: tuple[int, ...], options: lab) -> None:
        super().__init__(bits)
        self.options = options
        self.register_buffer("second", torch.zeros(shape))
        self.register_buffer("passes", torch.tensor(0))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the binary weight."""
        latent = weight.detach()
        rounded = straight_through(weight, sign(latent) * self._scale(latent))
        if self.training and rounded.requires_grad:
            rounded.register_hook(self._gather)
        return rounded

    def levels(self, weight: Tensor) -> Levels:
        """Return the signs, and one scale or one a filter."""
        return as_levels(weight, self._scale(weight.detach()))

    def _gather(self, grad: Tensor) -> None:
        square = grad.detach().square().to(self.second.dtype)
        finite = square.isfinite().all()  # a loss that is scaled overflows now and then, and that step is left out
        self.second.lerp_(torch.where(finite, square, self.second), 1 - self.options.beta2)
        self.passes += finite

    def _scale(self, weight: Tensor) -> Tensor:
        seen = 1 - self.options.beta2 ** self.passes.clamp_min(1)
        curve = (self.second / seen).sqrt() + TINY
        if self.options.per_filter:
            scale = (curve * weight.abs()).flatten(1).sum(1) / curve.flatten(1).sum(1)
            return by_filter(scale, weight)
        return (curve * weight.abs()).sum() / curve.sum()
