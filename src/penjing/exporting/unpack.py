"""Weights in few bits in an ONNX file: packed codes, and standard operators that unpack them when the file is opened.

A runtime computes with the unpacked weights, so that the file is smaller and no faster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from penjing.exporting.unhash import unhashed
from penjing.graph.quantized import quantized
from penjing.packing import bits
from penjing.packing.hashed import Hashed
from penjing.packing.levels import Levels

LEAST_OPSET = 18
"""Since which ONNX has a bitwise and."""

CLOSE = 1e-5
"""How near a file's weight is to codes times scales, as a share of its size: batch norm has been folded into it."""

SCALE = "scale"
"""What every packed weight has beside it in the file, under its name and a slash."""


def unpacked(graph: Any) -> list[str]:
    """Return the names of the weights that a file unpacks."""
    end = f"/{SCALE}"
    return [tensor.name.removesuffix(end) for tensor in graph.initializer if tensor.name.endswith(end)]


def pack(proto: Any, model: nn.Module) -> list[str]:
    """Store the weights of a model's quantized layers as codes, in a model's exported graph, in place.

    Returns the names of the layers whose weights the file holds in another form, and so in floats.
    """
    layers = quantized(model)
    if not layers:
        return []
    if _opset(proto) < LEAST_OPSET:
        return list(layers)
    known = {name: layer.weights.levels(layer.weight.detach()) for name, layer in layers.items()}
    graph, left, nodes = proto.graph, [], list[Any]()
    used: set[str] = set()
    constants = _Constants()
    for name, levels in known.items():
        found = _find(graph, levels, used)
        if found is None:
            left.append(name)
            continue
        tensor, scale, turned = found
        used.add(tensor.name)
        made, tensors = _unpacking(tensor.name, levels, scale, turned, constants)
        graph.initializer.remove(tensor)
        graph.initializer.extend(tensors)
        nodes += made
    graph.initializer.extend(constants.tensors.values())
    before = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *before])
    return left


def _opset(proto: Any) -> int:
    return next((int(one.version) for one in proto.opset_import if one.domain in ("", "ai.onnx")), 0)


def _find(graph: Any, levels: Levels | Hashed, used: set[str]) -> tuple[Any, NDArray[np.float32], bool] | None:
    """Return the tensor that is these levels times a scale a filter, the scale, and whether it is transposed."""
    from onnx import numpy_helper

    unscaled = levels if isinstance(levels, Hashed) else replace(levels, scale=torch.tensor(1.0))
    flat = unscaled.values().numpy().reshape(levels.shape[0], -1).astype(np.float64)
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


class _Constants:
    """Small tensors that the unpacking of several weights reads, each of them once."""

    def __init__(self) -> None:
        self.tensors: dict[tuple[Any, ...], Any] = {}

    def __call__(self, *numbers: int, dtype: Any = np.int64, shape: tuple[int, ...] = (-1,)) -> str:
        from onnx import numpy_helper

        key = (numbers, np.dtype(dtype).name, shape)
        if key not in self.tensors:
            array = np.array(numbers, dtype).reshape(shape)
            self.tensors[key] = numpy_helper.from_array(array, f"unpack/{len(self.tensors)}")
        return str(self.tensors[key].name)


class _Nodes:
    """The nodes that make one weight; what they hand on is called after it."""

    def __init__(self, weight: str, constant: _Constants) -> None:
        self.weight, self.constant, self.made = weight, constant, list[Any]()

    def __call__(self, kind: str, *inputs: str, last: bool = False, **attributes: Any) -> str:
        from onnx import helper

        output = self.weight if last else f"{self.weight}/{len(self.made)}"
        self.made.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def apart(self, codes: str, width: int, count: int) -> str:
        """Take so many codes of 1, 2 or 4 bits out of bytes, and return them a byte each."""
        constant = self.constant
        lanes = constant(*range(0, 8, width), dtype=np.uint8, shape=(1, -1))
        shifted = self("BitShift", self("Unsqueeze", codes, constant(1)), lanes, direction="RIGHT")
        masked = self("BitwiseAnd", shifted, constant(2**width - 1, dtype=np.uint8, shape=()))
        return self("Slice", self("Reshape", masked, constant(-1)), constant(0), constant(count))


def _unpacking(
    name: str, levels: Levels | Hashed, scale: NDArray[np.float32], turned: bool, constant: _Constants
) -> tuple[list[Any], list[Any]]:
    """Return the nodes that make a weight of this name, and the tensors that they alone read."""
    from onnx import numpy_helper

    tensors: list[Any] = []

    def given(what: str, array: NDArray[Any]) -> str:
        tensors.append(numpy_helper.from_array(array, f"{name}/{what}"))
        return f"{name}/{what}"

    node = _Nodes(name, constant)
    if isinstance(levels, Hashed):
        values = unhashed(node, levels, given("buckets", levels.buckets.numpy()))
    else:
        values = _gathered(node, levels, given)
    weight = node("Reshape", values, constant(*levels.shape))
    by = given(SCALE, scale.reshape(-1, *[1] * (len(levels.shape) - 1)))
    if turned:
        node("Transpose", node("Mul", weight, by), last=True, perm=[1, 0])
    else:
        node("Mul", weight, by, last=True)
    return node.made, tensors


def _gathered(node: _Nodes, levels: Levels, given: Callable[[str, NDArray[Any]], str]) -> str:
    """Add the nodes that take codes out of bytes and look them up; return the name of what they hand on."""
    from onnx import helper

    joined, place = "", 0
    for width in _widths(levels.bits):
        part = (levels.codes.numpy() >> place & (2**width - 1)).astype(np.uint8)
        codes = given(f"packed/{width}", bits.pack(part, width))
        if width < 8:
            codes = node.apart(codes, width, levels.codes.numel())
        if place:
            codes = node("BitShift", codes, node.constant(place, dtype=np.uint8, shape=()), direction="LEFT")
        joined = node("BitwiseOr", joined, codes) if joined else codes
        place += width
    index = node("Cast", joined, to=helper.np_dtype_to_tensor_dtype(np.dtype(np.int32)))
    return node("Gather", given("table", levels.table.numpy().astype(np.float32)), index, axis=0)


def _widths(bits: int) -> list[int]:
    """Return parts of 1, 2, 4 or 8 bits, which fill bytes, that make so many bits.

    >>> [_widths(bits) for bits in (1, 3, 6, 7, 8)]
    [[1], [1, 2], [2, 4], [1, 2, 4], [8]]
    """
    return [width for width in (1, 2, 4, 8) if bits & width]
