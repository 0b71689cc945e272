"""Ternary weights: minus one, nothing or one, times one scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from penjing.core.errors import PlanError
from penjing.core.registry import register
from penjing.packing.levels import Levels
from penjing.quantizers.base import Quantizer, Weights, straight_through


@register("quantizer")
@dataclass(frozen=True)
class twn(Quantizer):  # noqa: N801  (registered under its own name)
    """Round weights to -a, 0 and a: zero where they are below ``delta`` times their mean size.

    ``exact`` takes the threshold of the least squared error instead; ``per_filter`` one scale and threshold a filter.

    Paper: Li, Zhang, Liu, Ternary Weight Networks, 2016, eqs. 5 and 6; the threshold 0.7 is of their released code.
    """

    widths: ClassVar[tuple[int, ...]] = (2,)

    delta: float = 0.7
    exact: bool = False
    per_filter: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        if not 0 < self.delta < 4:
            raise PlanError(f"twn: delta is the share of the mean size below which weights are 0; got {self.delta}.")

    def weights(self, shape: tuple[int, ...], bits: int) -> Ternary:
        """Return what rounds a weight."""
        return Ternary(bits, self)


class Ternary(Weights):
    """Ternary weights with the straight-through gradient; nothing is learned beside the latent weight."""

    def __init__(self, bits: int, options: twn) -> None:
        super().__init__(bits)
        self.options = options

    def forward(self, weight: Tensor) -> Tensor:
        """Return the ternary weight."""
        signs, scale = self._rounded(weight.detach())
        return straight_through(weight, (signs * scale).view_as(weight))

    def levels(self, weight: Tensor) -> Levels:
        """Return the signs as codes of -1, 0 and 1."""
        signs, scale = self._rounded(weight.detach())
        table = torch.tensor([-1.0, 0.0, 1.0])
        return Levels((signs.flatten() + 1).byte().cpu(), table, scale.flatten().float().cpu(), tuple(weight.shape), 2)

    def _rounded(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return signs [rows, n] and scales [rows, 1], a row a filter or one for all."""
        flat = weight.flatten(1) if self.options.per_filter else weight.reshape(1, -1)
        size = flat.abs()
        if self.options.exact:
            cut = _best(size)
            stays = size >= cut
        else:
            stays = size > self.options.delta * size.mean(1, keepdim=True)
        signs = flat.sign() * stays
        scale = (size * stays).sum(1, keepdim=True) / stays.sum(1, keepdim=True).clamp_min(1)
        return signs, scale


def _best(size: Tensor) -> Tensor:
    """Return, for each row, the smallest size that stays where the squared error is least."""
    ordered = size.sort(dim=1, descending=True).values
    count = torch.arange(1, size.shape[1] + 1, device=size.device, dtype=torch.float64)
    gain = ordered.double().cumsum(1) ** 2 / count  # what k levels of the best scale explain
    return ordered.gather(1, gain.argmax(1, keepdim=True))
