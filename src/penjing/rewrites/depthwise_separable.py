"""Write convolutions as a depthwise and a 1 x 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from penjing.core.registry import register
from penjing.factors.base import Factorization
from penjing.factors.depthwise_separable import depthwise_separable as decomposition
from penjing.factors.layer import LayerSpec
from penjing.rewrites.factored import Factored


@register("rewrite")
@dataclass(frozen=True)
class depthwise_separable(Factored):  # noqa: N801  (registered under its own name)
    """Write a convolution as k x k depthwise, with as many filters an input channel as the rank, and 1 x 1.

    Paper: the inverse of Chollet, Xception, CVPR 2017, and of Howard et al., MobileNets, 2017.
    """

    by: ClassVar[Factorization] = decomposition()

    def width(self, spec: LayerSpec) -> int:
        """Return how many channels of a stage a rank spans."""
        return spec.in_channels
