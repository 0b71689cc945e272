"""Networks that run from their packed weights: layers of signs by XOR and popcount, in C."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.graph.chains import put_in
from penjing.graph.quantized import QuantConv2d, Quantized, beside, quantized
from penjing.kernels.xnor import XnorConv2d, XnorLinear
from penjing.packing.levels import Levels
from penjing.quantizers.base import Reads


class Scaled(nn.Module):
    """A layer of signs whose outputs are multiplied by what is seen of its inputs before they are rounded.

    Shapes: those of the layer.
    """

    def __init__(self, layer: XnorConv2d, like: Quantized) -> None:
        super().__init__()
        self.layer, self.reads, self.like = layer, like.reads, [like]  # of which the sizes alone are wanted
        self.threshold, self.bias = like.threshold, like.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer computes."""
        y: Tensor = self.layer(x)
        seen = x if self.threshold is None else x - beside(self.threshold, x)
        assert self.reads is not None
        gain = self.reads.gain(seen, self.like[0])
        y = y if gain is None else y * gain
        y = y if self.bias is None else y + beside(self.bias, y)
        return y


def run_packed(model: nn.Module) -> nn.Module:
    """Let the layers of a loaded network that have a kernel run from their packed weights, in place; return it.

    These are layers whose weights and inputs are signs. The others compute with the numbers that their codes stand for.
    Nothing of it is trained then: no gradient would come through, and what lies before would learn nothing.
    """
    for name, layer in quantized(model).items():
        made = _signs(layer)
        if made is not None:
            put_in(model, name, made.train(layer.training))
            model.requires_grad_(False)
    return model


def refuse_packed(model: nn.Module) -> None:
    """Refuse a network that runs from packed weights where it must be traced or trained.

    Raises: PlanError naming the first of the layers.
    """
    name = next((name for name, one in model.named_modules() if isinstance(one, XnorConv2d)), None)
    if name is not None:
        raise PlanError(
            f"{name} runs from its packed weights, which can be run and nothing else; to train, export or look at this "
            "network, load it with packed=False."
        )


def _signs(layer: Quantized) -> nn.Module | None:
    """Return the packed form of a layer of signs; None of any other."""
    levels = layer.weights.levels(layer.weight)
    reads = layer.reads
    if not isinstance(levels, Levels) or levels.bits != 1 or reads is None or reads.bits != 1:
        return None
    if not layer.precision.quantizer.signed or levels.table.tolist() != [-1.0, 1.0]:
        return None
    signs, gains = levels.codes.view(levels.shape).bool(), type(reads).gain is not Reads.gain
    held = {"scale": levels.scale, "bias": None if gains else layer.bias, "threshold": layer.threshold}
    given: dict[str, Any] = {key: None if value is None else value.detach() for key, value in held.items()}
    if isinstance(layer, QuantConv2d):
        if layer.padding_mode != "zeros":
            return None
        given |= {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
        made: XnorConv2d = XnorConv2d(signs, **given)
    else:
        made = XnorLinear(signs, **given)
    return Scaled(made, layer) if gains else made
