"""Predict the latency of a draft from the times of its layers, each shape timed once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from penjing.core.errors import PenjingError
from penjing.core.layers import Layer
from penjing.core.protocols import Draft
from penjing.costs.probe import Shape, time_shape
from penjing.exporting.measure import Timing

KNOTS = (0.0, 1 / 8, 1 / 4, 1 / 2, 3 / 4)
"""Shares of a layer's widest form that are timed beside it; none means one step."""

EVEN = 4
"""A width that is no multiple of this leaves the runtime's fast path, and is timed itself."""

Timer = Callable[[Shape], float]
"""Returns the milliseconds of a layer's shape."""


@dataclass
class LayerTable:
    """The latency of networks, added up from layers that ``timer`` times when they are first asked for.

    A cost that is cheap once its shapes are known: each new one takes about 50 ms, a large one 0.3 s. Of a layer whose
    widest form ``calibrate`` has seen, a few widths are timed, and what lies between is read off the stair of ``step``
    channels and a line from tread to tread: an allocator asks about thousands. After ``calibrate`` the original's
    prediction equals its measured latency; six kinds of networks cut to 3/4, 1/2 and 1/4 of their width were then
    predicted within 6 % (median; worst 18 %) on a busy machine. Picks and shifts count where a plan's chains have them;
    those that stand in a network already are part of what its layers do not explain.

    Units: ms.
    """

    timer: Timer = time_shape
    times: dict[Shape, float] = field(default_factory=dict)
    scale: float = 1.0
    rest: float = 0.0
    overhead: float = 0.0
    step: int = 1
    widest: dict[Shape, tuple[int, int]] = field(default_factory=dict)

    unit = "ms"
    cheap = True

    def time(self, layer: Layer) -> float:
        """Return the time of one layer."""
        return self.time_of(Shape.of(layer))

    def time_of(self, shape: Shape) -> float:
        """Return the time of a shape; a layer that has lost all its channels takes none."""
        if not (shape.in_channels and shape.out_channels):
            return 0.0
        if shape in self.times:
            return self.times[shape]
        if shape.picks:
            return self._mixed(shape, _powers(shape.in_channels), _powers(shape.out_channels))
        widest = self.widest.get(_family(shape))
        return self.timed(shape) if widest is None else self._between(shape, widest)

    def timed(self, shape: Shape) -> float:
        """Return the time of a shape that is timed itself, now or before."""
        if shape not in self.times:
            self.times[shape] = self.timer(shape)
        return self.times[shape]

    def _between(self, shape: Shape, widest: tuple[int, int]) -> float:
        """Return the time of a shape from those of the timed widths around it, on both sides."""
        widths = (shape.in_channels, shape.out_channels)
        if any(n > most or (n % EVEN and n != most) for n, most in zip(widths, widest, strict=True)):
            return self.timed(shape)
        return self._mixed(shape, *(self._around(n, most) for n, most in zip(widths, widest, strict=True)))

    def _mixed(self, shape: Shape, ins: list[tuple[int, float]], outs: list[tuple[int, float]]) -> float:
        """Return the time of a shape from those of others, a share of each."""
        return sum(
            share_in * share_out * self.timed(replace(shape, in_channels=i, out_channels=o))
            for i, share_in in ins
            for o, share_out in outs
        )

    def _around(self, width: int, widest: int) -> list[tuple[int, float]]:
        """Return the timed widths around one, and the share of each."""
        stair = max(self.step, EVEN)
        tread = min(-(-width // stair) * stair, widest)
        knots = sorted({widest, *(min(-(-int(widest * f) // stair) * stair or stair, widest) for f in KNOTS)})
        at = next(i for i, knot in enumerate(knots) if knot >= tread)
        if knots[at] == tread or at == 0:
            return [(knots[at], 1.0)]
        share = (tread - knots[at - 1]) / (knots[at] - knots[at - 1])
        return [(knots[at - 1], 1.0 - share), (knots[at], share)]

    def predict(self, layers: Sequence[Layer], moves: Sequence[Layer] = ()) -> float:
        """Return the latency of a network with these layers, and these that only move what is between them."""
        times = sum(map(self.time, [*layers, *moves]))
        return self.scale * (self.overhead + times + self.rest * _activations(layers))

    def calibrate(self, layers: Sequence[Layer], whole: Timing | float) -> None:
        """Make the prediction for the original's ``layers`` equal its measured latency.

        What the layers do not explain (pooling, additions, gates), nor the ``overhead`` that is known of the target, is
        spread over the elements they write, since it shrinks with them; kept constant it made the error at a quarter
        of the width up to 170 %. Where the layers explain more than there is, they are scaled down. Layer times are
        the least of many, so of a ``Timing`` the least is compared, and its median scales everything.
        """
        best, median = (whole.best_ms, whole.median_ms) if isinstance(whole, Timing) else (whole, whole)
        if not (best > 0 and math.isfinite(median)):
            raise PenjingError(f"A latency of {best} ms cannot calibrate the layer table.")
        for shape in map(Shape.of, layers):
            if shape.groups == 1:
                most = self.widest.get(_family(shape), (0, 0))
                self.widest[_family(shape)] = max(most[0], shape.in_channels), max(most[1], shape.out_channels)
        explained, elements = self.overhead + sum(map(self.time, layers)), _activations(layers)
        self.rest = max(best - explained, 0.0) / elements if elements else 0.0
        predicted = explained + self.rest * elements
        self.scale = median / predicted if predicted else 1.0

    def __call__(self, draft: Draft) -> float:
        """Return the predicted latency of a draft."""
        return self.predict(draft.layers, moves(draft))


def moves(draft: Draft) -> list[Layer]:
    """Return the picks and shifts in the chains of a draft's plan."""
    return [one.layer for one in draft.passes if one.layer is not None]


def _family(shape: Shape) -> Shape:
    """Return the shape without its widths."""
    return replace(shape, in_channels=0, out_channels=0)


def _powers(width: int) -> list[tuple[int, float]]:
    """Return the powers of two around a width, and the share of each: picks are timed at these."""
    low = 1 << (width.bit_length() - 1)
    return [(low, 2 - width / low), (2 * low, width / low - 1)] if width > low else [(low, 1.0)]


def _activations(layers: Sequence[Layer]) -> int:
    """Return the elements that additions and poolings may read; between the stages of a chain there are none."""
    return sum(layer.out_channels * math.prod(layer.out_size) for layer in layers if not layer.inner)
