"""Which range of an activation the levels of a quantized file span, found on calibration pictures.

The least and the greatest number come from ONNX Runtime's calibrator. Where a part of that range is chosen, a histogram
between them decides; the library's own grows with each batch and takes a multiple of the time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from penjing.core import console
from penjing.exporting.session import Arrays, run, session
from penjing.exporting.silence import silence
from penjing.quantizers.observers import BINS, tells_most

Calibration = Literal["minmax", "percentile", "mse", "entropy"]

LEVELS = 256

SHARES = np.linspace(1, 0.2, 81)
"""Of the whole range: those that the least squared error is looked for among."""

Floats = NDArray[np.float64]


def ranges(
    proto: Any, feeds: Sequence[Arrays], operators: Sequence[str], calibration: Calibration, percentile: float,
    folder: Path,
) -> Any:  # fmt: skip
    """Return the range of each float tensor that an operator reads or writes, as the library takes them.

    ``folder`` is for files of no use afterwards.
    """
    import onnx
    from onnxruntime import quantization as library

    onnx.save(proto, folder / "float.onnx")
    method = library.CalibrationMethod.MinMax
    with quiet():
        seer = library.create_calibrator(
            folder / "float.onnx", list(operators), str(folder / "seen.onnx"), method, extra_options={}
        )
    # One batch at a time: given all at once, the library holds what it saw of all of them.
    for one in console.track(feeds, "calibrating int8"):
        with quiet():
            seer.collect_data(_Once(one))
    with quiet():
        found = seer.compute_data()
    if calibration == "minmax":
        return found
    whole = {name: (float(np.min(one.lowest)), float(np.max(one.highest))) for name, one in found.items()}
    parts = {
        name: part(counts, *whole[name], calibration, percentile) if counts.any() else whole[name]
        for name, counts in _histograms(proto, _rounded(proto, whole), feeds).items()
    }
    arrays = {name: tuple(np.asarray(end, np.float32) for end in ends) for name, ends in (whole | parts).items()}
    return library.TensorsData(method, arrays)


def part(counts: Floats, low: float, high: float, calibration: Calibration, percentile: float) -> tuple[float, float]:
    """Return the part of a range, 0 within it, that its levels span best by a histogram over it."""
    edges = np.linspace(low, high, len(counts) + 1)
    if calibration == "mse":
        return least_error(counts, edges)
    middle, top = (edges[:-1] + edges[1:]) / 2, max(-low, high)
    sizes = np.histogram(np.abs(middle), BINS, (0, top), weights=counts)[0]
    if calibration == "percentile":
        at = np.searchsorted(np.cumsum(sizes), percentile / 100 * sizes.sum())
        clip = top * (int(at) + 1) / BINS
    else:
        sizes[0] = 0  # there lies zero, which every range has a level for
        clip = tells_most(sizes, top, LEVELS // 2 if low < 0 else LEVELS)
    return max(low, -clip), min(high, clip)


def least_error(counts: Floats, edges: Floats) -> tuple[float, float]:
    """Return the range whose levels have the least squared error over a histogram.

    Numbers within it err by a twelfth of the squared step on average, zero not at all; those without go to its end.
    """
    middle = (edges[:-1] + edges[1:]) / 2
    low, high = min(edges[0], 0), max(edges[-1], 0)
    weight = np.where((edges[:-1] <= 0) & (edges[1:] >= 0), 0, counts)
    errors = []
    for share in SHARES:
        beyond = middle - np.clip(middle, share * low, share * high)
        step = share * (high - low) / (LEVELS - 1)
        errors.append((weight * np.where(beyond == 0, step**2 / 12, beyond**2)).sum())
    share = SHARES[int(np.argmin(errors))]
    return float(share * low), float(share * high)


def _rounded(proto: Any, whole: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Return the tensors that are rounded, of all: what a ReLU alone reads is rounded behind it."""
    readers: dict[str, list[str]] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    return {
        name: ends
        for name, ends in whole.items()
        if readers.get(name) not in (["Relu"], ["Clip"]) and ends[0] < ends[1] and np.isfinite(ends).all()
    }


def _histograms(proto: Any, ends: Mapping[str, tuple[float, float]], feeds: Sequence[Arrays]) -> dict[str, Floats]:
    """Return how many numbers lie in each of equal parts of the range of each tensor."""
    import onnx

    seen = onnx.ModelProto()
    seen.CopyFrom(proto)
    given = [value.name for value in proto.graph.input]
    made = [name for name in ends if name not in given]
    del seen.graph.output[:]
    seen.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in made)
    running = session(seen.SerializeToString()) if made else None
    counts = {name: np.zeros(BINS) for name in ends}
    for one in console.track(feeds, "calibrating int8"):
        outputs = [] if running is None else run(running, one)
        for name, array in {**one, **dict(zip(made, outputs, strict=True))}.items():
            if name in ends:
                counts[name] += (
                    torch.histc(torch.from_numpy(np.require(array, requirements="W")), BINS, *ends[name])
                    .double()
                    .numpy()
                )
    return counts


class _Once:
    """What the library calls a reader: it hands out one batch."""

    def __init__(self, feeds: Arrays) -> None:
        self._left = [feeds]

    def get_next(self) -> Arrays | None:
        """Return the batch, then None."""
        return self._left.pop() if self._left else None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what the library prints and logs, and what numpy says of a tensor that is zero all over."""
    with silence(), np.errstate(all="ignore"):
        yield
