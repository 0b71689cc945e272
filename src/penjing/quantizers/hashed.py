"""Hashed weights: each number of a layer's weight is one of few trained numbers, chosen by a hash of its position."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.core.registry import register
from penjing.packing.hashed import MOST_SEED, Hashed, scattered
from penjing.quantizers.base import Quantizer, Weights


@register("quantizer")
@dataclass(frozen=True)
class hashed(Quantizer):  # noqa: N801  (registered under its own name)
    """Let the numbers of a weight share buckets of float32 at random; nothing but the buckets is stored.

    ``ratio`` is that of buckets to numbers. By default the bits that a site is given tell it, as those stored of each
    number on average: 32 bits a bucket, so that 4 bits are the ratio 1/8. A ratio of one's own leaves a site one
    choice of bits, the next whole number above.

    Paper: Chen et al., Compressing Neural Networks with the Hashing Trick, 2015, section 4.
    Differs: the hash, which the paper leaves open, is xxHash of the position; a layer begins at a trained weight.
    """

    widths: ClassVar[tuple[int, ...]] = (1, 2, 3, 4, 5, 6, 7, 8)
    usual: ClassVar[int] = 4

    ratio: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        if self.ratio is not None:
            if not 0 < self.ratio <= 1:
                raise PlanError(f"hashed: ratio is that of buckets to numbers, up to 1; got {self.ratio}.")
            object.__setattr__(self, "widths", (math.ceil(32 * self.ratio),))
        if not 0 <= self.seed <= MOST_SEED:
            raise PlanError(f"hashed: seed lies from 0 to {MOST_SEED}; got {self.seed}.")

    def weights(self, shape: tuple[int, ...], bits: int) -> Buckets:
        """Return what makes a weight of buckets."""
        return Buckets(shape, bits, self._buckets(shape, bits), self.seed)

    def stored(self, shape: tuple[int, ...], bits: int) -> int:
        """Return the bits of the buckets."""
        return 32 * self._buckets(shape, bits)

    def _buckets(self, shape: tuple[int, ...], bits: int) -> int:
        ratio = bits / 32 if self.ratio is None else self.ratio
        return math.ceil(ratio * math.prod(shape))


class Buckets(Weights):
    """Trained buckets; the gradient of one is the signed sum over the numbers that share it.

    Shapes: buckets [buckets]; places int64, signs [numbers], made anew with the layer and in no bundle.
    """

    latent: ClassVar[bool] = False
    places: Tensor
    signs: Tensor

    def __init__(self, shape: tuple[int, ...], bits: int, buckets: int, seed: int) -> None:
        super().__init__(bits)
        self.shape, self.seed = shape, seed
        places, signs = scattered(math.prod(shape), buckets, seed)
        self.buckets = nn.Parameter(torch.zeros(buckets))
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("signs", signs, persistent=False)

    def start(self, weight: Tensor) -> Tensor:
        """Set each bucket to the signed mean of its numbers, which is nearest to the weight in squares."""
        flat = weight.detach().flatten()
        sums = torch.zeros_like(self.buckets).index_add_(0, self.places, flat * self.signs)
        counts = torch.bincount(self.places, minlength=len(self.buckets))
        with torch.no_grad():
            self.buckets.copy_(sums / counts.clamp_min(1))
        return super().start(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight that the buckets make; ``weight`` has no part in it."""
        return (self.buckets.gather(0, self.places) * self.signs).view(self.shape)

    def levels(self, weight: Tensor) -> Hashed:
        """Return the buckets."""
        return Hashed(self.buckets.detach().float().cpu(), self.seed, self.shape)
