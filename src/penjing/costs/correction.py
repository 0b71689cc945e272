"""How far a table of single layers is off on whole networks, learned from those that runs have measured.

The time of a network is taken for ``overhead + sum of factor * layer + spread * values written``. A profile says how
the layers' time divides among kinds, and what is no layer; the whole network's latency says how much all of it is,
since a profile takes time itself. Without a profile the gap is divided as a run does it for its own network
(``costs/table.py``): what the layers do not explain is spread over the values that they write, and layers that
explain too much are scaled down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from penjing.costs.design import kind_of
from penjing.costs.fit import StaircaseModel, Stairs, solved
from penjing.costs.seen import Seen

ENOUGH = 5
"""Different networks that the least squares, with an overhead, need."""

SMALL = 0.05
"""A kind of layer with less of a network's time is not judged by it."""

BETTER = 0.9
"""The overhead is believed if it leaves less than this share of the error on networks that were left out."""

LEAST_FACTOR = 0.5
"""Least squares under which layers take less of their time than this have told sizes apart wrongly."""


@dataclass(frozen=True)
class Correction:
    """What the times of a table are multiplied with, by kind of layer or else ``factor``, and what comes beside them.

    Units: ``spread`` in ms a million values that layers write, ``overhead`` in ms a network.
    """

    kinds: Mapping[str, float]
    factor: float
    spread: float = 0.0
    overhead: float = 0.0

    def of(self, kind: str) -> float:
        """Return the factor of a kind of layer."""
        return self.kinds.get(kind, self.factor)

    def layers(self, network: Seen) -> float:
        """Return what the layers of a network take."""
        return sum(self.of(kind) * ms for kind, ms in network.predicted.items())

    def predict(self, network: Seen) -> float:
        """Return what a network takes."""
        return self.overhead + self.layers(network) + self.spread * network.values / 1e6

    def times(self, level: float) -> Correction:
        """Return the same with all of it so many times as large."""
        kinds = {kind: level * one for kind, one in self.kinds.items()}
        return Correction(kinds, level * self.factor, level * self.spread, level * self.overhead)

    def applied(self, table: StaircaseModel) -> StaircaseModel:
        """Return the table with its times corrected, and with the overhead."""

        def scaled(kind: str, one: Stairs) -> Stairs:
            return replace(one, ms={name: self.of(kind) * ms for name, ms in one.ms.items()})

        stairs = {kind: scaled(kind, one) for kind, one in table.stairs.items()}
        times = {shape: self.of(kind_of(shape)) * ms for shape, ms in table.times.items()}
        return StaircaseModel(table.batch, stairs, times, self.overhead)


def learned(networks: Sequence[Seen]) -> Correction | None:
    """Return the correction that networks teach; None without any.

    By medians, so that one disturbed run decides nothing; from ``ENOUGH`` different networks on also by least squares
    with an overhead, if that tells each of them better from the others than the medians do.
    """
    points = distinct(networks)
    if not points:
        return None
    found = _by_medians(points)
    if len(points) < ENOUGH:
        return found
    squares = _by_squares(points)
    if squares is None or _left(points, _by_squares) >= BETTER * _left(points, _by_medians):
        return found
    return squares


def distinct(networks: Sequence[Seen]) -> list[Seen]:
    """Return each network once, with the median of what was measured of it, so that a favourite counts once."""
    same: dict[tuple[int, tuple[tuple[str, float], ...]], list[Seen]] = {}
    for one in networks:
        if one.total > 0:
            key = one.values, tuple(sorted((kind, round(ms, 6)) for kind, ms in one.predicted.items()))
            same.setdefault(key, []).append(one)
    return [_median(group) for group in same.values()]


def _median(group: Sequence[Seen]) -> Seen:
    told = [one for one in group if one.layers]
    kinds = {kind: median(one.layers.get(kind, 0.0) for one in told) for kind in (told[0].layers if told else ())}
    return replace(
        group[0],
        measured=median(one.measured for one in group),
        median=median(one.median for one in group),
        layers=kinds,
    )


def _by_medians(points: Sequence[Seen]) -> Correction:
    told = [one for one in points if one.layers]
    if told:
        kinds = {kind for one in told for kind, ms in one.layers.items() if _counts(one, kind, ms)}
        factors = {
            kind: median(
                one.layers[kind] / one.predicted[kind]
                for one in told
                if kind in one.layers and _counts(one, kind, one.layers[kind])
            )
            for kind in sorted(kinds)
        }
        factor = median(sum(one.layers.values()) / one.total for one in told)
        left = [(max(one.measured - sum(one.layers.values()), 0.0), one.values) for one in told]
    else:
        factors, factor = {}, median(min(one.measured / one.total, 1.0) for one in points)
        left = [(max(one.measured - one.total, 0.0), one.values) for one in points]
    first = Correction(factors, factor, median(1e6 * ms / values if values else 0.0 for ms, values in left))
    return first.times(median(one.measured / first.predict(one) for one in points))


def _counts(one: Seen, kind: str, ms: float) -> bool:
    """Tell whether a network says anything about a kind."""
    return ms >= SMALL * one.measured and one.predicted.get(kind, 0.0) > 0


def _by_squares(points: Sequence[Seen]) -> Correction | None:
    """Return the least squares of relative errors over terms that are not negative; None where they say nothing."""
    base = _by_medians(points)
    rows = np.array([[base.layers(one), one.values / 1e6, 1.0] for one in points])
    (level, spread, overhead), _ = solved(rows, np.array([one.measured for one in points]))
    if level < LEAST_FACTOR:
        return None
    kinds = {kind: float(level) * one for kind, one in base.kinds.items()}
    return Correction(kinds, float(level) * base.factor, float(spread), float(overhead))


def _left(points: Sequence[Seen], how: Callable[[Sequence[Seen]], Correction | None]) -> float:
    """Return the median error on networks that each were left out of the fit."""
    errors = []
    for i, one in enumerate(points):
        found = how([*points[:i], *points[i + 1 :]])
        errors.append(float("inf") if found is None else abs(found.predict(one) / one.measured - 1))
    return median(errors)
