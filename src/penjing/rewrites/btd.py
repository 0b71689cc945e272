"""Write convolutions as sums of small Tucker blocks: a bottleneck with groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from penjing.core.registry import register
from penjing.factors.base import Factorization
from penjing.factors.btd import btd as decomposition
from penjing.factors.layer import LayerSpec
from penjing.rewrites.factored import Factored

CHANNELS = 4
"""The input and output channels of a block."""


@register("rewrite")
@dataclass(frozen=True)
class btd(Factored):  # noqa: N801  (registered under its own name)
    """Write a convolution as 1 x 1, grouped k x k and 1 x 1; the rank is the number of groups, of 4 channels each.

    Paper: De Lathauwer, Decompositions of a Higher-Order Tensor in Block Terms II, SIAM J. Matrix Anal. Appl. 30, 2008.
    """

    by: ClassVar[Factorization] = decomposition(CHANNELS, CHANNELS)

    def width(self, spec: LayerSpec) -> int:
        """Return how many channels of a stage a rank spans."""
        return CHANNELS
