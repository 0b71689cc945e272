"""Weights in few bits in an ONNX file: packed codes, and standard operators that unpack them when the file is opened.

A runtime computes with the unpacked weights, so that the file is smaller and no faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from penjing.graph.quantized import quantized
from penjing.packing.levels import Levels

LEAST_OPSET = 18
"""Since which ONNX has a bitwise and."""

CLOSE = 1e-5
"""How near a file's weight is to codes times scales, as a share of its size: batch norm has been folded into it."""


def pack(proto: Any, model: nn.Module) -> list[str]:
    """Store the weights of a model's quantized layers as codes, in a model's exported graph, in place.

    Returns the names of the layers whose weights the file holds in another form, and so in floats.
    """
    layers = quantized(model)
    if not layers:
        return []
    if _opset(proto) < LEAST_OPSET:
        return list(layers)
    stored = {name: layer.weights.levels(layer.weight.detach()) for name, layer in layers.items()}
    known = {name: one for name, one in stored.items() if isinstance(one, Levels)}
    left = [name for name in stored if name not in known]  # a hash is nothing that standard operators compute
    graph, nodes = proto.graph, list[Any]()
    used: set[str] = set()
    for name, levels in known.items():
        found = _find(graph, levels, used)
        if found is None:
            left.append(name)
            continue
        tensor, scale, turned = found
        used.add(tensor.name)
        made, tensors = _unpacking(tensor.name, levels, scale, turned)
        graph.initializer.remove(tensor)
        graph.initializer.extend(tensors)
        nodes += made
    before = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *before])
    return left


def _opset(proto: Any) -> int:
    return next((int(one.version) for one in proto.opset_import if one.domain in ("", "ai.onnx")), 0)


def _find(graph: Any, levels: Levels, used: set[str]) -> tuple[Any, NDArray[np.float32], bool] | None:
    """Return the tensor that is these codes times a scale a filter, the scale, and whether it is transposed."""
    from onnx import numpy_helper

    flat = levels.table.numpy()[levels.codes.numpy()].reshape(levels.shape[0], -1).astype(np.float64)
    turned = (*levels.shape[:-2], levels.shape[-1], levels.shape[-2]) if len(levels.shape) == 2 else None
    for tensor in graph.initializer:
        dims = tuple(tensor.dims)
        if tensor.name in used or dims not in (levels.shape, turned):
            continue
        values = numpy_helper.to_array(tensor)
        for across in [flag for flag in (False, True) if dims == (turned if flag else levels.shape)]:
            rows = (values.T if across else values).reshape(levels.shape[0], -1).astype(np.float64)
            own = (flat**2).sum(1)
            scale = np.divide((rows * flat).sum(1), own, out=np.zeros(len(own)), where=own > 0)
            gap = np.abs(rows - scale[:, None] * flat).max()
            if gap <= CLOSE * max(float(np.abs(rows).max()), 1e-30):
                return tensor, scale.astype(np.float32), across
    return None


def _unpacking(name: str, levels: Levels, scale: NDArray[np.float32], turned: bool) -> tuple[list[Any], list[Any]]:
    """Return the nodes that make a weight of this name, and the tensors they read."""
    from onnx import helper, numpy_helper

    tensors: list[Any] = []

    def given(what: str, array: NDArray[Any]) -> str:
        tensors.append(numpy_helper.from_array(array, f"{name}/{what}"))
        return f"{name}/{what}"

    nodes: list[Any] = []

    def node(kind: str, inputs: Sequence[str], what: str, **attributes: Any) -> str:
        output = name if what == "" else f"{name}/{what}"
        nodes.append(helper.make_node(kind, list(inputs), [output], name=f"{name}/{what or 'weight'}", **attributes))
        return output

    bits, count = _stored(levels), levels.codes.numel()
    codes = given("packed", packed(levels.codes.numpy(), bits))
    if bits < 8:
        apart = node("Unsqueeze", [codes, given("last", np.array([1], np.int64))], "bytes")
        places = given("places", np.arange(0, 8, bits, dtype=np.uint8)[None])
        shifted = node("BitShift", [apart, places], "shifted", direction="RIGHT")
        masked = node("BitwiseAnd", [shifted, given("mask", np.array(2**bits - 1, np.uint8))], "masked")
        line = node("Reshape", [masked, given("line", np.array([-1], np.int64))], "all")
        ends = [given("from", np.array([0], np.int64)), given("to", np.array([count], np.int64))]
        codes = node("Slice", [line, *ends], "codes")
    index = node("Cast", [codes], "index", to=helper.np_dtype_to_tensor_dtype(np.dtype(np.int32)))
    values = node("Gather", [given("table", levels.table.numpy().astype(np.float32)), index], "values", axis=0)
    weight = node("Reshape", [values, given("shape", np.array(levels.shape, np.int64))], "shaped")
    by = given("scale", scale.reshape(-1, *[1] * (len(levels.shape) - 1)))
    if not turned:
        node("Mul", [weight, by], "")
    else:
        node("Transpose", [node("Mul", [weight, by], "scaled")], "", perm=[1, 0])
    return nodes, tensors


def _stored(levels: Levels) -> int:
    return next(n for n in (1, 2, 4, 8) if levels.bits <= n)


def packed(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Return codes of 1, 2, 4 or 8 bits side by side in bytes, the first in the lowest bits.

    >>> packed(np.array([1, 2, 3], np.uint8), 4).tolist()
    [33, 3]
    """
    a_byte = 8 // bits
    padded = np.zeros(-(-codes.size // a_byte) * a_byte, np.uint8)
    padded[: codes.size] = codes.ravel()
    lanes = padded.reshape(-1, a_byte) << np.arange(0, 8, bits, dtype=np.uint8)
    both: NDArray[np.uint8] = np.bitwise_or.reduce(lanes, axis=1).astype(np.uint8)
    return both
