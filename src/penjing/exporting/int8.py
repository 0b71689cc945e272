"""From an exported ONNX file to one that computes in 8-bit whole numbers, by ONNX Runtime's quantization tools.

The file gets pairs of QuantizeLinear and DequantizeLinear (QDQ), which runtimes fuse with the operators between them.
Batch norm is folded by the exporter already. Weights are symmetric, a scale a channel; activations affine, a scale a
tensor; biases 32-bit.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from penjing.core.errors import DataError, PenjingError, PlanError, did_you_mean, reason
from penjing.core.files import write_whole
from penjing.exporting import displaced, tidy
from penjing.exporting.bias import corrected
from penjing.exporting.ranges import Calibration, quiet, ranges
from penjing.exporting.runtimes.operators import LAYERS, layers_in
from penjing.exporting.session import Arrays, as_feeds, fixed_batch, samples_in, session

HEAVY = ("Conv", "Gemm", "MatMul")
"""Operators that multiply with weights, and that ONNX Runtime has kernels in whole numbers for."""

OPERATORS = (
    *HEAVY, "Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Mul",
    "Pad", "Relu", "Reshape", "Resize", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
"""What is quantized: those, and what lies between them; no softmax or norm, which 8 bits would harm for no time."""


@dataclass(frozen=True)
class Int8:
    """How a file is quantized.

    ``calibration`` says which range of an activation its 256 levels span: all that was seen (minmax), what holds
    ``percentile`` % of it, what has the least squared error (mse), or what tells most (entropy). ``reduce_range`` takes
    7 bits for weights; by default where the processor adds products in 16 bits, which would overflow. Layers, and
    modules of layers, in ``keep`` stay in floats; ``correct_bias`` takes the mean error of the rounded weights out of
    the biases.

    Paper: Krishnamoorthi, Quantizing deep convolutional networks for efficient inference, 2018 (a scale a channel);
    Migacz, 8-bit Inference with TensorRT, GTC 2017 (entropy); Nagel et al., Data-Free Quantization Through Weight
    Equalization and Bias Correction, 2019, eq. 17.
    """

    calibration: Calibration = "mse"
    percentile: float = 99.99
    activations: Literal["uint8", "int8"] = "uint8"
    reduce_range: bool | None = None
    keep: tuple[str, ...] = ()
    correct_bias: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        for name, known in (("calibration", get_args(Calibration)), ("activations", _TYPES)):
            if getattr(self, name) not in known:
                given = getattr(self, name)
                raise PlanError(f"int8: there is no {name} {given!r}.{did_you_mean(str(given), known)}")
        if isinstance(self.keep, str):
            object.__setattr__(self, "keep", (self.keep,))
        if not 50 < self.percentile <= 100:
            raise PlanError(f"int8: percentile is the share that stays within range, 50 to 100; got {self.percentile}.")

    @property
    def narrow(self) -> bool:
        """Tell whether weights take 7 bits."""
        return saturates() if self.reduce_range is None else self.reduce_range

    def keeps(self, layer: str) -> bool:
        """Tell whether a layer stays in floats: it is named in ``keep``, or the module that it is in."""
        return any(layer == name or layer.startswith(f"{name}.") for name in self.keep)


_TYPES = {"uint8": "QUInt8", "int8": "QInt8"}


@dataclass(frozen=True)
class Quantized:
    """Which layers compute in whole numbers, and which stay in floats, by their names in the network."""

    layers: tuple[str, ...]
    kept: tuple[str, ...]


def roughly(how: Int8) -> Int8:
    """Return the options of a file that is measured and not used: ranges change neither its size nor its speed."""
    return Int8("minmax", 100.0, how.activations, how.reduce_range, how.keep, correct_bias=False)


def saturates() -> bool:
    """Tell whether this processor sums two products of bytes in 16 bits, as x86 does without its VNNI instructions."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    info = Path("/proc/cpuinfo")
    return info.is_file() and "_vnni" not in info.read_text(errors="replace")


def quantize(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    batches: Iterable[Any],
    how: Int8 | None = None,
    notes: list[str] | None = None,
) -> Quantized:
    """Quantize an exported file; ``target`` appears complete or not at all, and may be ``source`` itself.

    ``batches`` are inputs without labels, as ``parity`` takes them. What a report should know is appended to
    ``notes``. The result is the same for the same file, batches and options.

    Raises: PlanError for a name in ``keep`` that no layer has, or a file without a layer to quantize; DataError where
    there is nothing to calibrate on; PenjingError for a file that cannot be read or written.
    """
    import onnx

    how, notes = how or Int8(), [] if notes is None else notes
    running = session(source)
    feeds = list(_portions(batches, running))
    count = sum(samples_in(one) for one in feeds)
    if not count:
        raise DataError("int8 calibrates the range of each activation on pictures, and there are none.")
    if count < FEW:
        notes.append(
            f"int8 was calibrated on {count} picture{'s' * (count > 1)}; ranges that hold for others need some hundred."
        )
    if all(_flat(array) for one in feeds for array in one.values() if array.dtype.kind == "f"):
        raise DataError(
            "int8 cannot be calibrated: every picture is of one colour, so that activations have no range; give real "
            "pictures, normalised as for training."
        )
    proto, name = onnx.load(os.fspath(source)), os.fspath(source)
    displaced.spread(proto)
    layers, other = _layers(proto, name)
    if others := ", ".join(dict.fromkeys(other.values())):
        notes.append(
            f"int8 leaves {others} in floats: ONNX Runtime has kernels in whole numbers for convolutions and linear "
            "layers whose weights are constants, and for no other layers."
        )
    chosen = _chosen(layers, how, name)
    nodes = [node for node, layer in layers.items() if layer in chosen]
    left = [node for node in (*layers, *other) if node not in nodes]
    try:
        with tempfile.TemporaryDirectory(prefix="penjing-") as folder:
            found = ranges(proto, feeds, OPERATORS, how.calibration, how.percentile, Path(folder))
        result = _rounded(proto, found, how, left)
        if how.correct_bias and corrected(proto, result, feeds, nodes):
            result = _rounded(proto, found, how, left)
    except (ValueError, TypeError, KeyError, RuntimeError, AssertionError, NotImplementedError) as error:
        raise PenjingError(
            f"int8: ONNX Runtime cannot quantize {name}: {reason(error)} Name the layers that it stumbles over in keep."
        ) from error
    write_whole(target, result.SerializeToString())
    kept = dict.fromkeys(layer for layer in (*layers.values(), *other.values()) if layer not in chosen)
    return Quantized(tuple(chosen), tuple(kept))


def _flat(array: NDArray[Any]) -> bool:
    """Tell whether each channel is one number all over."""
    apart = np.ptp(array, axis=tuple(axis for axis in range(array.ndim) if axis != 1) if array.ndim > 2 else None)
    return not np.any(apart)


SINGLE = 1
"""What ONNX calls the type of 32-bit floats."""

FEW = 32
"""Pictures that are too few for ranges to hold for others."""


def _portions(batches: Iterable[Any], running: Any) -> Iterator[Arrays]:
    """Yield the inputs of each batch, of the size that a file insists on; what does not fill one is left out."""
    fixed = fixed_batch(running)
    for inputs in batches:
        feeds = as_feeds(running, inputs)
        count = samples_in(feeds)
        if fixed is None:
            yield feeds
            continue
        for start in range(0, count - fixed + 1, fixed):
            rows = slice(start, start + fixed)
            yield {name: a[rows] if a.ndim and len(a) == count else a for name, a in feeds.items()}


def _layers(proto: Any, source: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the layers that can be quantized, and those that cannot, by the names of their operators.

    Operators without a name are given one.

    Raises: PlanError where there is nothing to quantize.
    """
    for at, node in enumerate(proto.graph.node):
        node.name = node.name or f"node_{at}"
    names = layers_in(proto.SerializeToString())
    kinds = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    piles = {tensor.name for tensor in proto.graph.initializer if len(tensor.dims) > 2}
    can, cannot = dict[str, str](), dict[str, str]()
    for node in proto.graph.node:
        if node.op_type in LAYERS:
            weighty = node.op_type in HEAVY and node.input[1] in kinds
            # A pile of matrices has no channel of its own that a scale could go by.
            weighty &= node.op_type != "MatMul" or node.input[1] not in piles
            (can if weighty else cannot)[node.name] = names.get(node.name, node.name)
    if not can:
        raise PlanError(f"int8: {source} has no convolution or linear layer to quantize; leave the step int8 out.")
    odd = [can[node.name] for node in proto.graph.node if node.name in can and kinds[node.input[1]] != SINGLE]
    if odd:
        raise PlanError(f"int8 quantizes 32-bit floats, and the weight of {odd[0]} is of others; export model.float().")
    return can, cannot


def _chosen(layers: Mapping[str, str], how: Int8, source: str) -> list[str]:
    """Return the layers to quantize.

    Raises: PlanError for a name that is no layer's, or where none is left.
    """
    known = list(dict.fromkeys(layers.values()))
    for name in how.keep:
        if not any(replace(how, keep=(name,)).keeps(layer) for layer in known):
            raise PlanError(f"int8: keep names {name!r}, which is no layer of {source}.{did_you_mean(name, known)}")
    chosen = [name for name in known if not how.keeps(name)]
    if not chosen:
        raise PlanError(
            f"int8: keep names all {len(known)} layers, so nothing is left to quantize; leave the step out."
        )
    return chosen


def _rounded(proto: Any, found: Any, how: Int8, left: Sequence[str]) -> Any:
    """Return the quantized graph, without the operators that are left; ``proto`` is not changed."""
    import onnx
    from onnxruntime import quantization as library

    source = onnx.ModelProto()
    source.CopyFrom(proto)
    types = library.QuantType
    with quiet():
        quantizer = library.QDQQuantizer(
            onnx.shape_inference.infer_shapes(source), True, how.narrow, types.QInt8, types[_TYPES[how.activations]],
            found, [], list(left), list(OPERATORS),
            # A linear layer's result is the network's answer, or is rounded by what reads it.
            {"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
        )  # fmt: skip
        quantizer.quantize_model()
    result = quantizer.model.model
    tidy.strip(result)
    return result
