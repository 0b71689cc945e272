"""Write convolutions as three, by the Tucker decomposition of their weights along the two channel axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from penjing.core.registry import register
from penjing.factors.base import Factorization
from penjing.factors.svd import svd
from penjing.factors.tucker2 import tucker2 as decomposition
from penjing.rewrites.factored import Factored


@register("rewrite")
@dataclass(frozen=True)
class tucker2(Factored):  # noqa: N801  (registered under its own name)
    """Reduce input and output channels: 1 x 1, k x k of the ranks ``in`` and ``out``, 1 x 1.

    An axis that keeps all its ranks has no factor: what is left is the singular value decomposition along the other.

    Paper: Kim et al., Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications,
    ICLR 2016.
    """

    by: ClassVar[Factorization] = decomposition()

    def of(self, ranks: Mapping[str, int]) -> tuple[Factorization, tuple[int, ...]]:
        """Return how a layer is factored of whose axes these lose ranks, and to which."""
        if len(ranks) == 2:
            return super().of(ranks)
        ((axis, rank),) = ranks.items()
        return svd("input" if axis == "in" else "output"), (rank,)
