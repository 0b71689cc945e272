"""Write convolutions as the blocks of light architectures, from their weights alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from penjing.core.registry import register
from penjing.factors.base import Factorization
from penjing.factors.fire import fire as fire_module
from penjing.factors.grouped_shuffle import grouped_shuffle as shuffled
from penjing.factors.layer import LayerSpec
from penjing.factors.shift import shift as displaced
from penjing.rewrites.factored import Factored

GROUPS = 2
"""Groups of the two convolutions beside a shuffle."""


@register("rewrite")
@dataclass(frozen=True)
class shift(Factored):  # noqa: N801  (registered under its own name)
    """Write a convolution as channels displaced by whole pixels and 1 x 1; the rank is displacements an input channel.

    Paper: Wu et al., Shift: A Zero FLOP, Zero Parameter Alternative to Spatial Convolutions, CVPR 2018.
    """

    by: ClassVar[Factorization] = displaced()

    def width(self, spec: LayerSpec) -> int:
        """Return how many channels of a stage a rank spans."""
        return spec.in_channels


@register("rewrite")
@dataclass(frozen=True)
class fire(Factored):  # noqa: N801  (registered under its own name)
    """Write a convolution as 1 x 1 to as many channels as the rank, then 1 x 1 and k x k side by side, half of each.

    Paper: Iandola et al., SqueezeNet, 2016; linear between.
    """

    by: ClassVar[Factorization] = fire_module()

    def beside(self, stages: Mapping[str, LayerSpec]) -> dict[str, str]:
        """Return what the filters side by side are called in the network."""
        return fire_beside(stages)


@register("rewrite")
@dataclass(frozen=True)
class grouped_shuffle(Factored):  # noqa: N801  (registered under its own name)
    """Write a convolution as two in 2 groups with a channel shuffle between; the rank is channels a pair of groups.

    Paper: Zhang et al., ShuffleNet, CVPR 2018.
    """

    by: ClassVar[Factorization] = shuffled(GROUPS)

    def width(self, spec: LayerSpec) -> int:
        """Return how many channels of a stage a rank spans."""
        return GROUPS**2


def fire_beside(stages: Mapping[str, LayerSpec]) -> dict[str, str]:
    """Return what the filters of a fire module that lie side by side are called in the network."""
    return {name: f"expand.{name}" for name in stages if name in ("point", "square")}
