"""From an exported ONNX file to one that computes in 8-bit whole numbers, by ONNX Runtime's quantization tools.

The file gets pairs of QuantizeLinear and DequantizeLinear (QDQ), which runtimes fuse with the operators between them.
Batch norm is folded by the exporter already. Weights are symmetric, a scale a channel; activations affine, a scale a
tensor; biases 32-bit.
"""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from penjing.core import console
from penjing.core.errors import DataError, PenjingError, PlanError, did_you_mean
from penjing.core.files import write_whole
from penjing.exporting import tidy
from penjing.exporting.bias import corrected
from penjing.exporting.runtimes.operators import layers_in
from penjing.exporting.session import Arrays, as_feeds, fixed_batch, samples_in, session
from penjing.exporting.silence import silence

HEAVY = ("Conv", "Gemm", "MatMul")
"""Operators that multiply with weights, and that ONNX Runtime has kernels in whole numbers for."""

OPERATORS = (
    *HEAVY, "Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Mul",
    "Pad", "Relu", "Reshape", "Resize", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
"""What is quantized: those, and what lies between them; no softmax or norm, which 8 bits would harm for no time."""

BINS = 2048
"""Of a histogram of what an activation may be."""

SHARES = np.linspace(1, 0.2, 81)
"""Of the whole range: those that the least squared error is looked for among."""


@dataclass(frozen=True)
class Int8:
    """How a file is quantized.

    ``calibration`` says which range of an activation its 256 levels span: all that was seen, what holds
    ``percentile`` % of it, or what has the least squared error (mse). ``reduce_range`` takes 7 bits for weights; by
    default where the processor adds products in 16 bits, which would overflow. Layers in ``keep`` stay in floats;
    ``correct_bias`` takes the mean error of the rounded weights out of the biases.

    Paper: Krishnamoorthi, Quantizing deep convolutional networks for efficient inference, 2018 (a scale a channel);
    Nagel et al., Data-Free Quantization, 2019, eq. 17 (bias).
    """

    calibration: Literal["minmax", "percentile", "mse"] = "mse"
    percentile: float = 99.99
    activations: Literal["uint8", "int8"] = "uint8"
    reduce_range: bool | None = None
    keep: tuple[str, ...] = ()
    correct_bias: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        for name, known in (("calibration", _METHODS), ("activations", _TYPES)):
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


_METHODS = {"minmax": "MinMax", "percentile": "Percentile", "mse": "Percentile"}
_TYPES = {"uint8": "QUInt8", "int8": "QInt8"}


@dataclass(frozen=True)
class Quantized:
    """Which layers compute in whole numbers, and which stay in floats, by their names in the network."""

    layers: tuple[str, ...]
    kept: tuple[str, ...]


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
        notes.append(f"int8 was calibrated on {count} picture{'s' * (count > 1)}; ranges need some hundred to hold.")
    if all(np.ptp(array) == 0 for one in feeds for array in one.values() if array.dtype.kind == "f"):
        raise DataError(
            "int8 cannot be calibrated: every picture is one constant, so that no activation has a range; "
            "give real pictures, normalised as for training."
        )
    proto = onnx.load(os.fspath(source))
    layers = _layers(proto, os.fspath(source))
    chosen = _chosen(layers, how.keep, os.fspath(source))
    with tempfile.TemporaryDirectory(prefix="penjing-") as folder:
        ranges = _ranges(proto, feeds, how, Path(folder))
    result = _rounded(proto, ranges, how, chosen, layers)
    nodes = [name for name, layer in layers.items() if layer in chosen]
    if how.correct_bias and corrected(proto, result, feeds, nodes):
        result = _rounded(proto, ranges, how, chosen, layers)
    write_whole(target, result.SerializeToString())
    return Quantized(tuple(chosen), tuple(dict.fromkeys(one for one in layers.values() if one not in chosen)))


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


def _layers(proto: Any, source: str) -> dict[str, str]:
    """Return the layers that can be quantized, by the names of their operators, which are given where there are none.

    Raises: PlanError where there are none.
    """
    for at, node in enumerate(proto.graph.node):
        node.name = node.name or f"node_{at}"
    names = layers_in(proto.SerializeToString())
    fixed = {tensor.name for tensor in proto.graph.initializer}
    found = {
        node.name: names.get(node.name, node.name)
        for node in proto.graph.node
        if node.op_type in HEAVY and node.input[1] in fixed
    }
    if not found:
        raise PlanError(f"int8: {source} has no convolution or linear layer to quantize; leave the step int8 out.")
    return found


def _chosen(layers: Mapping[str, str], keep: Sequence[str], source: str) -> list[str]:
    """Return the layers to quantize.

    Raises: PlanError for a name that is no layer's, or where none is left.
    """
    known = list(dict.fromkeys(layers.values()))
    for name in keep:
        if name not in known:
            raise PlanError(f"int8: keep names {name!r}, which is no layer of {source}.{did_you_mean(name, known)}")
    chosen = [name for name in known if name not in keep]
    if not chosen:
        raise PlanError(f"int8: keep names all {len(known)} layers, so nothing is left to quantize; leave the step out.")
    return chosen


def _ranges(proto: Any, feeds: Sequence[Arrays], how: Int8, folder: Path) -> Any:
    """Return the range of each activation.

    One batch at a time: given all at once, the library holds the activations of all of them.
    """
    import onnx
    from onnxruntime import quantization as library

    path = folder / "float.onnx"
    onnx.save(proto, path)
    method = library.CalibrationMethod[_METHODS[how.calibration]]
    bins = {"num_bins": BINS, "percentile": how.percentile, "symmetric": False}
    with _quiet():
        calibrator = library.create_calibrator(
            path, list(OPERATORS), str(folder / "seen.onnx"), method, extra_options=bins if method.value else {}
        )
    for one in console.track(feeds, "calibrating int8"):
        with _quiet():
            calibrator.collect_data(_Once(one))
    if how.calibration == "mse":
        seen = calibrator.collector.get_histogram_dict()
        best = {name: least_error(counts, edges) for name, (counts, edges, *_) in seen.items()}
        return library.TensorsData(library.CalibrationMethod.MinMax, best)
    with _quiet():
        return calibrator.compute_data()


def least_error(counts: NDArray[Any], edges: NDArray[Any], levels: int = 256) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the range, low and high, whose levels have the least squared error over a histogram.

    Numbers within it err by a twelfth of the squared step on average, zero not at all; those without go to its end.
    """
    seen = np.flatnonzero(counts)
    middle = (edges[:-1] + edges[1:]) / 2
    low, high = min(edges[seen[0]], 0), max(edges[seen[-1] + 1], 0)
    weight = np.where((edges[:-1] <= 0) & (edges[1:] >= 0), 0, counts)
    errors = []
    for share in SHARES:
        beyond = middle - np.clip(middle, share * low, share * high)
        step = share * (high - low) / (levels - 1)
        errors.append((weight * np.where(beyond == 0, step**2 / 12, beyond**2)).sum())
    share = SHARES[int(np.argmin(errors))]
    return np.asarray(share * low, edges.dtype), np.asarray(share * high, edges.dtype)


class _Once:
    """What the library calls a reader: it hands out one batch."""

    def __init__(self, feeds: Arrays) -> None:
        self._left = [feeds]

    def get_next(self) -> Arrays | None:
        return self._left.pop() if self._left else None


def _rounded(proto: Any, ranges: Any, how: Int8, chosen: Sequence[str], layers: Mapping[str, str]) -> Any:
    """Return the quantized graph; ``proto`` is not changed."""
    import onnx
    from onnxruntime import quantization as library

    source = onnx.ModelProto()
    source.CopyFrom(proto)
    types = library.QuantType
    with _quiet():
        quantizer = library.QDQQuantizer(
            onnx.shape_inference.infer_shapes(source), True, how.narrow, types.QInt8, types[_TYPES[how.activations]],
            ranges, [], [node for node, layer in layers.items() if layer not in chosen], list(OPERATORS),
            # A linear layer's result is the network's answer, or is rounded by what reads it.
            {"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
        )  # fmt: skip
        quantizer.quantize_model()
    result = quantizer.model.model
    tidy.strip(result)
    return result


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drop what the library prints and logs, and what numpy says of a tensor that is zero all over."""
    with silence(), np.errstate(all="ignore"):
        yield
