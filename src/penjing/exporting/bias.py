"""Bias correction: take out of a layer's bias what rounding its weight adds to its output on average.

b ← b − E[(Ŵ − W) x]. A layer is linear, so the mean over samples may be taken of what it reads: one pass of the float
network gives the mean picture in front of each layer, and the layer itself, with Ŵ − W for its weight, does the rest.

Paper: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019, eq. 17.
Differs: the mean is taken on calibration pictures, not from batch norm, so that every layer has one; it is the float
network's, so that all layers take one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penjing.core import console
from penjing.exporting.session import Arrays, run, samples_in, session

BIASED = ("Conv", "Gemm")
"""Operators that add a bias themselves."""


def corrected(proto: Any, rounded: Any, feeds: Sequence[Arrays], names: Sequence[str]) -> int:
    """Correct the biases of a float graph, in place, for the weights that ``rounded`` has; return how many.

    ``names`` are those of the operators that are quantized.
    """
    from onnx import numpy_helper

    nodes = [node for node in proto.graph.node if node.name in names and node.op_type in BIASED]
    values = {tensor.name: tensor for tensor in proto.graph.initializer}
    nodes = [node for node in nodes if len(node.input) < 3 or node.input[2] in values]
    if not nodes:
        return 0
    means = _means(proto, [node.input[0] for node in nodes], feeds)
    rounded_nodes = {node.name: node for node in rounded.graph.node}
    done = 0
    for node in nodes:
        weight = numpy_helper.to_array(values[node.input[1]])
        gap = _dequantized(rounded, rounded_nodes[node.name].input[1]) - weight
        shift = _mean_output(proto, node, means[node.input[0]], gap)
        if not np.isfinite(shift).all():
            continue
        bias = numpy_helper.to_array(values[node.input[2]]) if len(node.input) > 2 else np.zeros_like(shift)
        beta = next((a.f for a in node.attribute if a.name == "beta"), 1.0)
        if bias.shape != shift.shape or beta != 1:
            continue
        name = f"{node.name}.corrected_bias"
        proto.graph.initializer.append(numpy_helper.from_array((bias - shift).astype(weight.dtype), name))
        del node.input[2:]
        node.input.append(name)
        done += 1
    _drop_unread(proto)
    return done


def _means(proto: Any, names: Sequence[str], feeds: Sequence[Arrays]) -> dict[str, NDArray[Any]]:
    """Return the mean over all samples of tensors, [1, ...]."""
    import onnx

    seen = onnx.ModelProto()
    seen.CopyFrom(proto)
    del seen.graph.output[:]
    opset = next(one.version for one in seen.opset_import if one.domain in ("", "ai.onnx"))
    wanted = list(dict.fromkeys(names))
    axes = onnx.numpy_helper.from_array(np.array([0]), "mean over samples")
    if opset >= 18:
        seen.graph.initializer.append(axes)
    for name in wanted:
        made = [f"mean of {name}"]
        seen.graph.node.append(
            onnx.helper.make_node("ReduceMean", [name, axes.name], made, keepdims=1)
            if opset >= 18
            else onnx.helper.make_node("ReduceMean", [name], made, keepdims=1, axes=[0])
        )
        seen.graph.output.append(onnx.helper.make_tensor_value_info(made[0], onnx.TensorProto.FLOAT, None))
    running = session(seen.SerializeToString())
    sums: list[Any] = [0.0] * len(wanted)
    count = 0
    for one in console.track(feeds, "correcting biases"):
        samples = samples_in(one)
        sums = [total + samples * mean.astype(np.float64) for total, mean in zip(sums, run(running, one), strict=True)]
        count += samples
    return {name: np.asarray(total / count, dtype=np.float32) for name, total in zip(wanted, sums, strict=True)}


def _dequantized(rounded: Any, name: str) -> NDArray[Any]:
    """Return the weight that a node of DequantizeLinear makes."""
    from onnx import numpy_helper

    node = next(node for node in rounded.graph.node if name in node.output)
    values = {tensor.name: tensor for tensor in rounded.graph.initializer if tensor.name in node.input}
    codes, scale, zero = (numpy_helper.to_array(values[one]) for one in node.input)
    if scale.ndim:
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        shape = [-1 if at == axis % codes.ndim else 1 for at in range(codes.ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    weight: NDArray[Any] = (codes.astype(np.float32) - zero.astype(np.float32)) * scale
    return weight


def _mean_output(proto: Any, node: Any, x: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
    """Return what a layer with this weight and no bias makes of ``x``, the mean of each channel."""
    import onnx

    alone = onnx.NodeProto()
    alone.CopyFrom(node)
    del alone.input[:], alone.output[:]
    alone.input.extend(["x", "weight"])
    alone.output.append("y")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [alone], "layer", [value("x", onnx.TensorProto.FLOAT, x.shape)], [value("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    (y,) = session(model.SerializeToString()).run(None, {"x": x})
    means: NDArray[Any] = y.mean(axis=tuple(axis for axis in range(y.ndim) if axis != 1))
    return means


def _drop_unread(proto: Any) -> None:
    read = {name for node in proto.graph.node for name in node.input} | {value.name for value in proto.graph.output}
    stays = [tensor for tensor in proto.graph.initializer if tensor.name in read]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(stays)
