"""The time of any layer from the times of some: a staircase in the channels, fitted kind by kind.

A layer's time is a sum of terms that are never negative: the arithmetic on channels padded to the runtime's blocks,
with and without what falls on the border's zeros; the weights, once for every row of the output, and once more where
they are too many for a cache; the activations read and written, in the same
blocks; and a constant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penjing.core.errors import PenjingError, PlanError
from penjing.costs import checked
from penjing.costs.design import kind_of
from penjing.costs.notation import read_shape, written
from penjing.costs.probe import Shape, lacking

STEPS = (1, 4, 8, 16, 32)
"""Blocks of channels that a runtime may pad to."""

CACHES = (2**14, 2**16, 2**18, 2**20)
"""Weights above which they may cost more: what caches hold, 64 KiB to 4 MiB of 32-bit floats."""

FEATURES = ("macs", "all_macs", "rows", "reads", "writes", "weights", *(f"weights_over_{n}" for n in CACHES), "layers")
"""What times are made of; each is counted in millions, but for the layer itself."""

_STEPS = ("read_step", "write_step")

SHARP = 0.1
"""Relative errors above this count by their size and not by their square: a disturbed sample shall not rule."""

SURE_MS = 0.002
"""Times far below this are the clock's noise and are fitted on it."""

CERTAIN = 1e-9
"""A squared relative error below this is rounding, and decides nothing between steps."""

FEWEST = 6
"""Layers of one kind that a fit needs, and layers that a term needs."""


@dataclass(frozen=True)
class Stairs:
    """The fit of one kind of layer: the blocks of channels read and written, and milliseconds a million of each term.

    Units: ms.
    """

    read_step: int
    write_step: int
    ms: Mapping[str, float]

    def predict(self, shape: Shape, batch: int) -> float:
        """Return the time of a layer."""
        found = _features(shape, self.read_step, self.write_step, batch)
        return sum(self.ms.get(name, 0.0) * value for name, value in zip(FEATURES, found, strict=True))


@dataclass(frozen=True)
class StaircaseModel:
    """The times of layers on one runtime, thread count and batch: those that were measured, and a fit for all others.

    ``overhead`` is what a network takes whatever its layers are, where that is known.

    Units: ms.
    """

    batch: int
    stairs: Mapping[str, Stairs]
    times: Mapping[Shape, float] = field(default_factory=dict)
    overhead: float = 0.0

    def predict(self, shape: Shape) -> float:
        """Return the time of a layer; one without channels takes none.

        Raises: PlanError for a kind of layer that was not fitted.
        """
        if not (shape.in_channels and shape.out_channels):
            return 0.0
        return self.times[shape] if shape in self.times else self.fitted(shape)

    def knows(self, shape: Shape) -> bool:
        """Tell whether there is a time for such a layer."""
        return shape in self.times or kind_of(shape) in self.stairs

    def fitted(self, shape: Shape) -> float:
        """Return the time of a layer by the fit, whether it was measured or not.

        Raises: PlanError for a kind of layer that was not fitted.
        """
        kind = kind_of(shape)
        if kind not in self.stairs:
            raise PlanError(
                f"{kind} layers were not measured on this target, only {', '.join(self.stairs)}; time one on it."
            )
        return self.stairs[kind].predict(shape, self.batch)

    def to_dict(self) -> dict[str, Any]:
        """Return the fit and the times as plain data, under ``fit`` and ``layers``."""
        fits = {
            kind: {"read_step": one.read_step, "write_step": one.write_step, "ms": dict(one.ms)}
            for kind, one in self.stairs.items()
        }
        return {"fit": fits, "layers": {written(shape): ms for shape, ms in self.times.items()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], batch: int) -> StaircaseModel:
        """Return what ``to_dict`` made data of.

        Raises: ValueError naming the key that is wrong.
        """
        fits = checked.mapping("fit", checked.entry("its data", data, "fit"))
        layers = checked.mapping("layers", checked.entry("its data", data, "layers"))
        stairs = {str(kind): _stairs(f"fit.{kind}", one) for kind, one in fits.items()}
        times = {_shape(str(text)): checked.number(f"layers.{text}", ms) for text, ms in layers.items()}
        return cls(batch, stairs, times)


def _stairs(where: str, data: Any) -> Stairs:
    read, made = (checked.count(f"{where}.{key}", checked.entry(where, data, key), 1) for key in _STEPS)
    terms = checked.mapping(f"{where}.ms", checked.entry(where, data, "ms"))
    if unknown := [name for name in terms if name not in FEATURES]:
        raise ValueError(f"{where}.ms has no term {checked.shown(unknown[0])}")
    return Stairs(read, made, {name: checked.number(f"{where}.ms.{name}", ms) for name, ms in terms.items()})


def _shape(text: str) -> Shape:
    try:
        return read_shape(text)
    except ValueError as error:
        raise ValueError(f"layers: {error}") from None


def fit(times: Mapping[Shape, float], batch: int = 1) -> StaircaseModel:
    """Fit the times of layers, and keep them beside the fit.

    Each kind for itself: the relative errors' squares are made least over terms that are not negative, for each pair of
    steps, and the steps that leave least are taken, the smaller of two that do not differ.

    Raises: PenjingError where a kind has too few layers.
    """
    kinds: dict[str, list[Shape]] = {}
    for shape in times:
        kinds.setdefault(kind_of(shape), []).append(shape)
    for kind, shapes in kinds.items():
        if len(shapes) < FEWEST:
            raise PenjingError(f"{len(shapes)} layers of the kind {kind} are too few to fit; {FEWEST} are needed.")
    return StaircaseModel(batch, {kind: _fitted(own, times, batch) for kind, own in sorted(kinds.items())}, times)


def _fitted(shapes: Sequence[Shape], times: Mapping[Shape, float], batch: int) -> Stairs:
    y = np.array([times[shape] for shape in shapes])
    best, least = None, math.inf
    for read_step, write_step in product(STEPS, STEPS):
        rows = np.array([_features(shape, read_step, write_step, batch) for shape in shapes])
        rows[:, (rows > 0).sum(axis=0) < FEWEST] = 0  # one disturbed layer would else decide on all larger ones
        ms, left = solved(rows, y)
        if left < 0.98 * least - CERTAIN * len(shapes):
            named = {name: float(f"{value:.5g}") for name, value in zip(FEATURES, ms, strict=True) if value > 0}
            best, least = Stairs(read_step, write_step, named), left
    assert best is not None
    return best


def solved(rows: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return the terms' weights, not negative, and the loss that they leave (Huber's, on relative errors)."""
    from scipy.optimize import nnls

    scale = 1 / np.hypot(y, SURE_MS)
    weight, ms, errors = scale, np.zeros(rows.shape[1]), y * scale
    for _ in range(6):
        ms = nnls(rows * weight[:, None], y * weight)[0]
        errors = np.abs(rows @ ms - y) * scale
        weight = scale * np.sqrt(1 / np.maximum(1.0, errors / SHARP))
    return ms, float(np.where(errors < SHARP, errors**2, 2 * SHARP * errors - SHARP**2).sum())


def _features(shape: Shape, read_step: int, write_step: int, batch: int) -> list[float]:
    """Return what a layer's time is made of, in the order of ``FEATURES``."""
    taps, used = _taps(shape)
    positions, kernel = math.prod(shape.out_size), math.prod(shape.kernel)
    if shape.picks:
        moved = (
            _up(shape.in_channels, read_step) * positions * batch / 1e6,
            _up(shape.out_channels, write_step) * positions * batch / 1e6,
        )
        return [{"reads": moved[0], "writes": moved[1], "layers": 1.0}.get(name, 0.0) for name in FEATURES]
    read, made, groups = shape.in_channels // shape.groups, shape.out_channels // shape.groups, shape.groups
    if kind_of(shape) == "depthwise":  # blocks go across its groups
        padded = _up(shape.out_channels, write_step)
    else:
        padded = groups * _up(read, read_step) * _up(made, write_step)
    lines = shape.out_size[0] if shape.out_size else 1
    weights = shape.weights * used / kernel
    return [
        padded * taps * batch / 1e6,
        padded * kernel * positions * batch / 1e6,
        padded * used * lines * batch / 1e6,
        _up(shape.in_channels, read_step) * math.prod(shape.in_size) * batch / 1e6,
        _up(shape.out_channels, write_step) * positions * batch / 1e6,
        weights / 1e6,
        *(max(0.0, weights - cache) / 1e6 for cache in CACHES),
        1.0,
    ]


def _up(count: int, step: int) -> int:
    return -(-count // step) * step


def _taps(shape: Shape) -> tuple[int, int]:
    """Return how often a kernel meets the input, over all positions, and how many of its elements ever do.

    What falls on the border's zeros alone is not computed by kernels that know the border.
    """
    if not shape.kernel:
        return math.prod(shape.out_size), 1
    sides = zip(shape.in_size, shape.out_size, shape.kernel, shape.stride, shape.dilation, lacking(shape), strict=True)
    found = [_side(*side) for side in sides]
    return math.prod(taps for taps, _ in found), math.prod(used for _, used in found)


@lru_cache(maxsize=4096)
def _side(size: int, out: int, kernel: int, stride: int, dilation: int, lack: int) -> tuple[int, int]:
    """Return the same along one dimension."""
    place = np.arange(out)[:, None] * stride - max(lack, 0) // 2 + np.arange(kernel) * dilation
    inside = (place >= 0) & (place < size)
    return int(inside.sum()), int(inside.any(axis=0).sum())
