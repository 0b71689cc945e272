"""Write convolutions as sums of rank-one tensors: the canonical polyadic decomposition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from penjing.core.registry import register
from penjing.factors.base import Factorization
from penjing.factors.cp import cp as decomposition
from penjing.rewrites.factored import Factored


@register("rewrite")
@dataclass(frozen=True)
class cp(Factored):  # noqa: N801  (registered under its own name)
    """Write a convolution as 1 x 1, depthwise k x k and 1 x 1, fitted so that components do not cancel one another.

    Paper: Phan et al., Stable Low-rank Tensor Decomposition for Compression of Convolutional Neural Network, ECCV 2020.
    """

    by: ClassVar[Factorization] = decomposition(3)


@register("rewrite")
@dataclass(frozen=True)
class cp4(Factored):  # noqa: N801  (registered under its own name)
    """Write a convolution as 1 x 1, depthwise k x 1, depthwise 1 x k and 1 x 1.

    Paper: Lebedev et al., Speeding-up Convolutional Neural Networks Using Fine-tuned CP-Decomposition, ICLR 2015.
    """

    by: ClassVar[Factorization] = decomposition(4)
