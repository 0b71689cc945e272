"""The time of one layer on a runtime, free of what surrounds it.

The runtime keeps activations in blocks of channels between convolutions and pays for the change of layout at the
borders of a graph only, so a layer timed alone looks slower than it is. Here several copies of the layer, each with
weights of its own as in a network, read one activation that a cheap convolution wrote in the runtime's own layout,
and end in one pixel. Two such graphs differ in their number of copies alone: the difference of their times, over
that number, is the layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from penjing.core import registry
from penjing.core.errors import PlanError
from penjing.core.layers import Layer
from penjing.core.protocols import Runtime
from penjing.core.random import stream
from penjing.exporting.measure import clock_for, timed
from penjing.exporting.runtimes.subject import Subject

GROUP_MS = 0.5
"""Short groups and their minimum: least disturbed on a shared machine (0.1 to 2 % between repeats)."""

ROUNDS = 16
FEWEST_ROUNDS = 4
BUDGET_MS = 40.0
"""How long one layer is timed, if that is enough for the fewest rounds."""

IMAGE_CHANNELS = 4
"""A layer that reads this many channels or fewer reads the network's input."""

PICKS, END_CHANNELS = 4, 16
"""How many picks are timed together, and the channels of the convolution that reads one pixel of what each writes."""

OPSET, FORMAT = 20, 10


@dataclass(frozen=True)
class Shape:
    """What the time of a layer depends on; ``kernel`` is empty for a linear layer, and for a pick of channels."""

    in_channels: int
    out_channels: int
    groups: int = 1
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    transposed: bool = False
    in_size: tuple[int, ...] = ()
    out_size: tuple[int, ...] = ()
    picks: bool = False

    @classmethod
    def of(cls, layer: Layer) -> Shape:
        """Return the shape of a layer; that of a shift is the depthwise convolution's that the file has of it."""
        if layer.kind == "pick":
            sizes = tuple(layer.in_size), tuple(layer.out_size)
            return cls(layer.in_channels, layer.out_channels, in_size=sizes[0], out_size=sizes[1], picks=True)
        return cls(
            layer.in_channels, layer.out_channels, layer.groups, tuple(layer.kernel), tuple(layer.stride),
            tuple(layer.dilation), layer.transposed, tuple(layer.in_size), tuple(layer.out_size),
        )  # fmt: skip

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample."""
        positions = math.prod(self.in_size if self.transposed else self.out_size)
        return positions * self.weights

    @property
    def weights(self) -> int:
        """How many weights the layer has."""
        return 0 if self.picks else self.in_channels // self.groups * self.out_channels * math.prod(self.kernel)


def time_shape(
    shape: Shape, threads: int = 1, batch: int = 1, runtime: str = "onnxruntime", precision: str = "fp32"
) -> float:
    """Time a layer of this shape with random weights, on a runtime that reads ONNX.

    Units: ms.

    Raises: PlanError for a runtime that does not.
    """
    chosen: Runtime = registry.build("runtime", runtime)
    if not chosen.reads_files:
        raise PlanError(f"{runtime} reads no ONNX, so single layers cannot be timed on it.")
    (few, many), count = _models(shape, batch)
    clock, _ = clock_for(threads, chosen.own_threads)
    runs = [chosen.open(Subject(model), threads, None, precision) for model in (few, many)]
    least = []
    for once in runs:
        once()
        least.append(timed(once, 1, clock))
    times = [max(1, math.ceil(GROUP_MS / max(ms, 1e-4))) for ms in least]
    round_ms = sum(n * ms for n, ms in zip(times, least, strict=True))
    for done in range(int(min(ROUNDS, max(FEWEST_ROUNDS, BUDGET_MS / round_ms)))):
        for i in (0, 1) if done % 2 else (1, 0):
            least[i] = min(least[i], timed(runs[i], times[i], clock))
    # Noise can turn the difference of two tiny times around; a layer never takes less than nothing.
    return max(least[1] - least[0], 0.0) / count


def _models(shape: Shape, batch: int) -> tuple[tuple[bytes, bytes], int]:
    """Return two models that differ by so many layers of the shape alone."""
    if shape.picks and len(shape.in_size) == 2:
        return (picks(shape, 0, batch), picks(shape, PICKS, batch)), PICKS
    few, many = _copies(shape, batch)
    return (build(shape, few, batch), build(shape, many, batch)), many - few


def picks(shape: Shape, count: int, batch: int) -> bytes:
    """Return a model of ``PICKS`` pairs of cheap convolutions, between which so many times channels are picked.

    The runtime picks in plain layout, so that a pick costs the way there and back as well.
    """
    from onnx import TensorProto, helper, numpy_helper

    nodes, tensors, ends, values = [], [], [], _values()
    for i in range(PICKS):
        last = shape.out_channels if i < count else shape.in_channels
        sizes = {f"first{i}": (shape.in_channels, 1, 1, 1), f"last{i}": (END_CHANNELS, last, 1, 1)}
        tensors += [numpy_helper.from_array(next(values)(dims), name) for name, dims in sizes.items()]
        nodes.append(helper.make_node("Conv", ["input", f"first{i}"], [f"x{i}"]))
        if i < count:
            index = stream(i, "costs/probe/picks").permutation(shape.out_channels) % shape.in_channels
            tensors.append(numpy_helper.from_array(index.astype(np.int64), f"index{i}"))
            nodes.append(helper.make_node("Gather", [f"x{i}", f"index{i}"], [f"y{i}"], axis=1))
        read = f"y{i}" if i < count else f"x{i}"
        nodes.append(helper.make_node("Conv", [read, f"last{i}"], [f"end{i}"], strides=list(shape.out_size)))
        ends.append(helper.make_tensor_value_info(f"end{i}", TensorProto.FLOAT, None))
    return _model(nodes, [batch, 1, *shape.in_size], ends, tensors)


def build(shape: Shape, copies: int, batch: int) -> bytes:
    """Return a model that runs so many copies of the layer on one activation."""
    import onnx
    from onnx import TensorProto, helper

    make, tensors, values = helper.make_node, [], _values()
    rank = len(shape.kernel)

    def weight(name: str, *dims: int) -> str:
        tensors.append(onnx.numpy_helper.from_array(next(values)(dims), name))
        return name

    nodes, outputs, entry = [], [], [batch, shape.in_channels, *shape.in_size]
    source = "input"
    if rank == 0:
        entry = [batch * math.prod(shape.in_size), shape.in_channels]
    elif shape.in_channels > IMAGE_CHANNELS:
        entry = [batch, 1, *shape.in_size]
        source = "activation"
        nodes.append(make("Conv", ["input", weight("w", shape.in_channels, 1, *[1] * rank)], [source]))
    for i in range(copies):
        nodes += _layer(shape, source, weight, i) + _end(shape, i)
        outputs.append(helper.make_tensor_value_info(f"end{i}", TensorProto.FLOAT, None))
    return _model(nodes, entry, outputs, tensors)


def _model(nodes: list[Any], entry: list[int], outputs: list[Any], tensors: list[Any]) -> bytes:
    from onnx import TensorProto, helper

    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, entry)
    graph = helper.make_graph(nodes, "probe", [given], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=FORMAT)
    serialised: bytes = model.SerializeToString()
    return serialised


def _layer(shape: Shape, source: str, weight: Any, i: int) -> list[Any]:
    from onnx import helper

    name, bias = f"w{i}", weight(f"b{i}", shape.out_channels)
    out, per_in = shape.out_channels, shape.in_channels // shape.groups
    if shape.picks:
        index = helper.make_node("Constant", [], [f"index{i}"], value_ints=[k % shape.in_channels for k in range(out)])
        return [index, helper.make_node("Gather", [source, f"index{i}"], [f"y{i}"], axis=1)]
    if not shape.kernel:
        return [helper.make_node("Gemm", [source, weight(name, out, per_in), bias], [f"y{i}"], transB=1)]
    options: dict[str, Any] = {
        "kernel_shape": shape.kernel, "strides": shape.stride, "dilations": shape.dilation, "group": shape.groups,
        "pads": _pads(shape),
    }  # fmt: skip
    if shape.transposed:
        options["output_padding"] = [max(need, 0) for need in lacking(shape)]
        dims = (shape.in_channels, out // shape.groups, *shape.kernel)
        conv = helper.make_node("ConvTranspose", [source, weight(name, *dims), bias], [f"c{i}"], **options)
    else:
        conv = helper.make_node("Conv", [source, weight(name, out, per_in, *shape.kernel), bias], [f"c{i}"], **options)
    return [conv, helper.make_node("Relu", [f"c{i}"], [f"y{i}"])]


def _end(shape: Shape, i: int) -> list[Any]:
    """Reduce what copy ``i`` wrote to next to nothing, in the layout it has."""
    from onnx import helper

    if len(shape.kernel) == 2:
        pool = helper.make_node("MaxPool", [f"y{i}"], [f"end{i}"], kernel_shape=[1, 1], strides=list(shape.out_size))
        return [pool]
    axis = 2 if shape.kernel else 0
    first = helper.make_node("Constant", [], [f"first{i}"], value_ints=[0])
    last = helper.make_node("Constant", [], [f"last{i}"], value_ints=[1])
    along = helper.make_node("Constant", [], [f"axis{i}"], value_ints=[axis])
    cut = helper.make_node("Slice", [f"y{i}", f"first{i}", f"last{i}", f"axis{i}"], [f"end{i}"])
    return [first, last, along, cut]


def _pads(shape: Shape) -> list[int]:
    """Return the padding, begins then ends, that gives the output the size it has."""
    needs = lacking(shape)
    total = [max(-need, 0) for need in needs] if shape.transposed else [max(need, 0) for need in needs]
    return [t // 2 for t in total] + [t - t // 2 for t in total]


def lacking(shape: Shape) -> list[int]:
    """Return how many elements the unpadded layer lacks along each dimension: of input, or of output if transposed."""
    rows = zip(shape.in_size, shape.out_size, shape.kernel, shape.stride, shape.dilation, strict=True)
    if shape.transposed:
        return [out - ((size - 1) * s + d * (k - 1) + 1) for size, out, k, s, d in rows]
    return [(out - 1) * s + d * (k - 1) + 1 - size for size, out, k, s, d in rows]


def _copies(shape: Shape, batch: int) -> tuple[int, int]:
    """Return two numbers of copies: many where the layer is small beside the clock's noise, few where it is large.

    Two copies at least, since one alone would find its weights in the cache, unlike a layer in a network; none of it
    matters to weights larger than the cache.
    """
    if 4 * shape.weights > 2**24:
        return 1, 2
    return (2, 6) if shape.macs * batch < 20_000_000 else (2, 4)


def _values() -> Iterator[Any]:
    """Yield fillers of different small weights; drawing millions of numbers would take longer than timing them."""
    block = stream(0, "costs/probe").standard_normal(10_007).astype(np.float32) * 0.05
    shift = 0
    while True:
        shift += 1
        rolled = np.roll(block, shift)
        yield lambda dims, rolled=rolled: np.resize(rolled, dims)
