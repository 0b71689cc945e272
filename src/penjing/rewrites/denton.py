"""The factorisations of Denton et al. that cluster channels: of a first layer by colour, of others in blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from penjing.core.registry import register
from penjing.factors.base import Factorization
from penjing.factors.bicluster import bicluster as by_blocks
from penjing.factors.layer import LayerSpec
from penjing.factors.monochromatic import monochromatic as by_colour
from penjing.rewrites.factored import Factored


@register("rewrite")
@dataclass(frozen=True)
class monochromatic(Factored):  # noqa: N801  (registered under its own name)
    """Write a first layer as 1 x 1 to a few colours and k x k in which each filter reads one of them.

    A number of colours that does not divide the filters is taken for the next smaller one that does.

    Paper: Denton et al., Exploiting Linear Structure Within Convolutional Networks, NIPS 2014, section 3.2.1.
    """

    by: ClassVar[Factorization] = by_colour()

    def of(self, spec: LayerSpec, ranks: Mapping[str, int]) -> tuple[Factorization, tuple[int, ...]]:
        """Return how a layer is factored of whose axes these lose ranks, and to which."""
        (rank,) = ranks.values()
        return self.by, (next(n for n in range(rank, 0, -1) if spec.out_channels % n == 0),)


@register("rewrite")
@dataclass(frozen=True)
class bicluster(Factored):  # noqa: N801  (registered under its own name)
    """Cluster the channels into two halves on either side, and write each block between them as a small Tucker-2.

    Paper: Denton et al., NIPS 2014, section 3.2.2.
    """

    by: ClassVar[Factorization] = by_blocks()
