"""Give the operators that a runtime executes the names of the network's layers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from penjing.exporting.runtimes.subject import LayerTime
from penjing.exporting.session import Source
from penjing.exporting.unpack import unpacked

ADDED = re.compile(r"(_nchwc|_token_\d+|/WithoutBiases)+$")
"""What runtimes append to the name of an operator or tensor that they rewrite."""


class Executed(NamedTuple):
    """An operator as the runtime tells it: its name, what it does, how, and its milliseconds."""

    name: str
    operator: str
    kernel: str
    ms: float


LAYERS = frozenset(
    {"Conv", "ConvInteger", "ConvTranspose", "Convolution", "Deconvolution", "DynamicQuantizeMatMul", "FullyConnected",
     "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "GroupConvolution", "MatMul", "MatMulInteger",
     "MatMulIntegerToFloat", "QGemm", "QLinearConv", "QLinearMatMul"}
)  # fmt: skip
"""What ONNX and the runtimes call operators with weights of the network's."""

CARRIERS = frozenset({"Cast", "DequantizeLinear", "QuantizeLinear", "Reshape", "Transpose"})
"""What a weight may pass through on its way to its layer."""


def layers_in(source: Source) -> dict[str, str]:
    """Return the layer's name by the name of its ONNX operator, and by those of the tensors that carry its result.

    A weight keeps its name in the network. What operators without weights make of a layer's result carries it on, of
    a sum that of the summand computed last: runtimes call a fused operator by the last tensor that it writes.
    """
    import onnx

    if isinstance(source, bytes):
        graph = onnx.load_model_from_string(source).graph
    else:
        graph = onnx.load(os.fspath(source), load_external_data=False).graph
    origin = {tensor.name: tensor.name for tensor in graph.initializer if len(tensor.dims) > 1}
    origin |= {name: name for name in unpacked(graph)}
    found: dict[str, str] = {}
    made: dict[str, int] = {}
    for at, node in enumerate(graph.node):
        made |= dict.fromkeys(node.output, at)
        weights = [origin[name] for name in node.input if name in origin]
        carrying = [name for name in node.input if name in found]
        if weights and node.op_type in LAYERS:
            layer = weights[0].removesuffix("_quantized").removesuffix(".weight")
            found |= dict.fromkeys([node.name, *node.output], layer)
        elif weights and node.op_type in CARRIERS:
            origin |= dict.fromkeys(node.output, weights[0])
        elif carrying:
            found |= dict.fromkeys(node.output, found[max(carrying, key=lambda name: made.get(name, -1))])
    found.pop("", None)
    return found


def named(executed: Iterable[Executed], layers: Mapping[str, str]) -> list[LayerTime]:
    """Return the times of operators under the names of their layers, in the order of execution."""
    executed = list(executed)
    total = sum(one.ms for one in executed)
    rows, before = [], ""
    for one in executed:
        layer = layers.get(ADDED.sub("", one.name), "") if one.operator in LAYERS else ""
        before = layer or before
        name = layer or (f"after {before}" if before else one.name)
        rows.append(LayerTime(name, one.operator, one.kernel, one.ms, one.ms / total if total else 0.0))
    return rows
