"""Binarised neural networks: binary weights that read binary inputs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from penjing.core.registry import register
from penjing.quantizers.binary import FullyBinary, Signs
from penjing.quantizers.binaryconnect import Connected, glorot_bound


@register("quantizer")
@dataclass(frozen=True)
class bnn(FullyBinary):  # noqa: N801  (registered under its own name)
    """Round weights, and what layers read, to -1 and 1.

    Weights are those of ``binaryconnect``, which is the form for weights alone, with its scale of a whole layer if
    ``glorot``. Without it a normalisation must stand between two such layers: outputs are as large as inputs are many,
    and the gradient passes only where they are within 1.

    Paper: Hubara, Courbariaux, Soudry, El-Yaniv, Bengio, Binarized Neural Networks, NIPS 2016, eqs. 1, 4 and 5.
    Differs: signs of inputs are not drawn, and the paper's weights have no scale. Pooling is where the network has it;
    the paper has it before the norm.
    """

    glorot: bool = True

    def weights(self, shape: tuple[int, ...], bits: int) -> Connected:
        """Return what rounds a weight."""
        bound = glorot_bound(shape)
        return Connected(bits, bound, bound if self.glorot else 1.0)

    def reads(self, channels: int, bits: int) -> Signs:
        """Return the sign with the gradient of a hard tanh."""
        return Signs(_within)


def _within(x: Tensor) -> Tensor:
    return x.abs() <= 1
