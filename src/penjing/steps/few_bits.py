"""Layers in few bits: what is told of each, and which are smaller and no faster, with what would make them so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from penjing.core.layers import Layer
from penjing.core.protocols import Target
from penjing.graph.quantized import FLOAT, precisions
from penjing.steps.sides import Finding

SIZE_ONLY = "size only"
"""The cause."""

FASTER = (
    "take the step int8 in place of quantize, whose file computes in whole numbers, or run the bundle by penjing.load, "
    "where layers that have a kernel for their bits run packed"
)
"""What makes a network of few bits faster on a processor."""


@dataclass(frozen=True)
class FewBits:
    """A layer in few bits. ``size_only`` says that its bits bring no time where the network is to run.

    ``bits`` are those of a weight and ``input_bits`` of a value that it reads, 32 where these are floats.

    Units: bytes of all weights, with their tables.
    """

    layer: str
    method: str
    bits: int
    input_bits: int
    float_bytes: float
    bytes: float
    size_only: bool


def few_bits(model: nn.Module, layers: Sequence[Layer], target: Target) -> list[dict[str, Any]]:
    """Return what is to tell of the layers of a network that are in few bits, as plain data."""
    methods = {path: one.quantizer.name for path, one in precisions(model).items()}
    told = []
    for layer in layers:
        path = layer.weight.rpartition(".")[0]
        if path in methods:
            only = bool(target.runtime) or layer.input_bits >= FLOAT
            sizes = FLOAT / 8 * layer.weights, layer.weight_bytes
            told.append(FewBits(layer.name, methods[path], layer.bits, layer.input_bits, *sizes, only))
    return [asdict(one) for one in told]


def find(layers: Sequence[Layer], runtime: str) -> list[Finding]:
    """Return a finding for each layer whose few bits a runtime unpacks into floats before it computes."""
    says = f"its weights are unpacked to 32-bit floats when {runtime} opens the file, which is smaller and not faster"
    reads = "; what it reads is rounded by operators of their own, which take time"
    return [
        Finding(layer.name, SIZE_ONLY, f"{says}{reads if layer.input_bits < FLOAT else ''}", FASTER, None)
        for layer in layers
        if layer.bits < FLOAT
    ]


def find_modelled(layers: Sequence[Layer], bounds: Sequence[str], target: str) -> list[Finding]:
    """Return a finding for each layer of rounded weights that reads floats, and whose time is that of arithmetic."""
    says = f"its weights alone are in few bits: {target} computes it as wide as before, and it waits for arithmetic"
    remedy = "round what it reads as well (quantize: a method with activations, such as lsq)"
    return [
        Finding(layer.name, SIZE_ONLY, says, remedy, None)
        for layer, bound in zip(layers, bounds, strict=True)
        if layer.bits < FLOAT <= layer.input_bits and bound == "compute"
    ]
