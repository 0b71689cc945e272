"""Bi-Real Net: a derivative of the sign that is nearer to it, for what binary layers read."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from penjing.core.registry import register
from penjing.quantizers.binary import FullyBinary, ScaledSigns, Signs


@register("quantizer")
@dataclass(frozen=True)
class bireal(FullyBinary):  # noqa: N801  (registered under its own name)
    """Round each filter to its signs times its mean size, and what layers read to signs, by ApproxSign.

    Paper: Liu et al., Bi-Real Net, ECCV 2018, section 3.3; that the gradient of a weight passes without its scale is of
    their released code.
    Differs: shortcuts are those of the network. The paper has one around each binary convolution, which a quantizer of
    single layers cannot put there.
    """

    def weights(self, shape: tuple[int, ...], bits: int) -> Clipped:
        """Return what rounds a weight."""
        return Clipped(bits)

    def reads(self, channels: int, bits: int) -> Signs:
        """Return the sign with the derivative of ApproxSign."""
        return Signs(approx_sign)


class Clipped(ScaledSigns):
    """Scaled signs whose gradient passes where the latent weight is within 1."""

    def slope(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Return where it passes."""
        return weight.abs() <= 1


def approx_sign(x: Tensor) -> Tensor:
    """Return the derivative of ApproxSign: 2 - 2 |x| within 1, else 0.

    >>> import torch
    >>> approx_sign(torch.tensor([-1.5, -0.5, 0.0, 0.5, 1.5]))
    tensor([0., 1., 2., 1., 0.])
    """
    return (2 - 2 * x.abs()).clamp_min(0)
