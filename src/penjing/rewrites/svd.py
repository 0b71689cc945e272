"""Write layers as two, by the singular value decomposition of their weights unfolded in one of three ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from penjing.core.registry import register
from penjing.factors.base import Factorization
from penjing.factors.svd import svd as decomposition
from penjing.rewrites.factored import Factored


@register("rewrite")
@dataclass(frozen=True)
class svd(Factored):  # noqa: N801  (registered under its own name)
    """Reduce the output channels: a k x k convolution to r channels, then a 1 x 1; a linear layer as two.

    Paper: Denton et al., Exploiting Linear Structure Within Convolutional Networks, NIPS 2014.
    """

    by: ClassVar[Factorization] = decomposition("output")


@register("rewrite")
@dataclass(frozen=True)
class svd_input(Factored):  # noqa: N801  (registered under its own name)
    """Reduce the input channels: a 1 x 1 convolution to r channels, then the k x k."""

    by: ClassVar[Factorization] = decomposition("input")


@register("rewrite")
@dataclass(frozen=True)
class svd_spatial(Factored):  # noqa: N801  (registered under its own name)
    """Separate the axes: a k x 1 convolution to r channels, then a 1 x k.

    Paper: Jaderberg et al., Speeding up Convolutional Neural Networks with Low Rank Expansions, BMVC 2014; the closed
    form is Tai et al.'s, Convolutional Neural Networks with Low-rank Regularization, ICLR 2016.
    """

    by: ClassVar[Factorization] = decomposition("spatial")
