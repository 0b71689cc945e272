"""XNOR-Net: signs of weights times a scale a filter; binary inputs, or weights alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core.registry import register
from penjing.quantizers.binary import FullyBinary, ScaledSigns, Signs


@register("quantizer")
@dataclass(frozen=True)
class xnor(FullyBinary):  # noqa: N801  (registered under its own name)
    """Round each filter to its signs times its mean size, and what layers read to signs.

    Without ``activations`` weights alone are rounded (BWN). ``gain`` multiplies outputs by K, the mean size of what
    they were read from, place by place; the authors' code leaves it out, and so does the default.
    ``by_count`` multiplies the paper's gradient by the number of weights of a filter, as that code does for SGD,
    which would need a far higher learning rate otherwise; Adam does not mind.

    Paper: Rastegari, Ordonez, Redmon, Farhadi, XNOR-Net, ECCV 2016, eq. 6 (the scale), eq. 11 (K), and the
    gradient of section 3.1.
    Differs: the factor 1 - 1 / channels of the authors' code is left out. A filter of one channel (depthwise) is not
    centred over its channels, which would leave nothing of it.
    """

    activations: bool = True
    gain: bool = False
    by_count: bool = True

    def weights(self, shape: tuple[int, ...], bits: int) -> Centred:
        """Return what rounds a weight."""
        return Centred(bits, self.by_count)

    def reads(self, channels: int, bits: int) -> Signs | None:
        """Return the sign, with its sizes if asked."""
        if not self.activations:
            return None
        return Gained(_within) if self.gain else Signs(_within)


class Centred(ScaledSigns):
    """Scaled signs of a latent weight that has no mean over input channels and stays within 1."""

    def __init__(self, bits: int, by_count: bool = True) -> None:
        super().__init__(bits)
        self.by_count = by_count

    def start(self, weight: Tensor) -> Tensor:
        """Return the weight, centred and clipped."""
        weight = weight.detach().clone()
        _settle(weight)
        return weight

    def slope(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Return 1 / n + scale, without the scale where a weight is at 1."""
        count = weight[0].numel()
        slope = 1 / count + scale * (weight.abs() < 1)
        return slope * count if self.by_count else slope

    @torch.no_grad()
    def after_step(self, weight: nn.Parameter, progress: float) -> None:
        """Centre and clip the latent weight."""
        _settle(weight)


class Gained(Signs):
    """Signs of what a layer reads, and how large it was."""

    def gain(self, x: Tensor, layer: nn.Module) -> Tensor:
        """Return K of each output: the mean size of what is read for it, with zeros around the picture.

        Shapes: [n, 1, h, w] for a convolution, [n, out, h, w] for one in groups; [..., 1] for a linear layer.
        """
        if not isinstance(layer, nn.Conv2d):
            return x.abs().mean(-1, keepdim=True)
        size = x.abs().unflatten(1, (layer.groups, -1)).mean(2)
        box = x.new_full((layer.groups, 1, *layer.kernel_size), 1 / (layer.kernel_size[0] * layer.kernel_size[1]))
        means = F.conv2d(size, box, None, layer.stride, layer.padding, layer.dilation, layer.groups)
        return means if layer.groups == 1 else means.repeat_interleave(layer.out_channels // layer.groups, 1)


def _settle(weight: Tensor) -> None:
    if weight.shape[1] > 1:
        weight.sub_(weight.mean(1, keepdim=True))
    weight.clamp_(-1, 1)


def _within(x: Tensor) -> Tensor:
    return x.abs() < 1
