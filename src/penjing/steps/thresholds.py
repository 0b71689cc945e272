"""How sure each exit must be: the cheapest choice that answers as many pictures rightly as is asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from penjing.core.units import Floats

COMBINATIONS = 4096
"""How many choices of all thresholds together are looked at before each is refined."""

ROUNDS = 20
NEVER = math.inf


@dataclass(frozen=True)
class Costs:
    """What a picture costs.

    ``leave[k]`` is that of one that leaves at exit k with all exits there, the end of the network last; ``heads[k]``
    what asking at exit k adds for a picture that goes on; ``plain`` that of the network without any exit.
    """

    leave: tuple[float, ...]
    heads: tuple[float, ...]
    plain: float

    def of(self, used: Sequence[bool]) -> Floats:
        """Return what a picture costs that leaves at each exit, where those not ``used`` are taken away."""
        if not any(used):
            return np.full(len(self.leave), self.plain)
        unused = np.where(used, 0.0, self.heads)
        before = np.concatenate([[0.0], np.cumsum(unused)])
        found: Floats = np.asarray(self.leave) - before
        return found


@dataclass(frozen=True)
class Choice:
    """A threshold an exit, ``NEVER`` where it is not worth asking, and what comes of them on the pictures."""

    thresholds: tuple[float, ...]
    at: NDArray[np.int64]
    right: int
    cost: float


def choose(sure: Floats, right: NDArray[np.bool_], costs: Costs, least: int) -> Choice:
    """Return the choice of least mean cost among those with ``least`` right answers or more.

    A coarse grid of all thresholds together comes first, then each is set to its best among all that differ on these
    pictures, the others being held, until nothing becomes cheaper. An exit that no picture leaves at is not asked.

    Shapes: sure [exits, pictures], the largest class probability; right [exits + 1, pictures].
    """
    exits = len(sure)
    grid = max(2, int(COMBINATIONS ** (1 / max(exits, 1))))
    steps = [[*_quantiles(one, grid - 1), NEVER] for one in sure]
    best = outcome(sure, right, costs, (NEVER,) * exits)
    for thresholds in product(*steps):
        best = _better(best, outcome(sure, right, costs, thresholds), least)
    for _ in range(ROUNDS):
        before = best
        for k in range(exits):
            refined = _refined(best.thresholds, k, sure, right, costs, least)
            best = _better(best, outcome(sure, right, costs, refined), least)
        if best.cost >= before.cost:
            break
    left = set(best.at.tolist())
    used = tuple(one if k in left else NEVER for k, one in enumerate(best.thresholds))
    return outcome(sure, right, costs, used)


def outcome(sure: Floats, right: NDArray[np.bool_], costs: Costs, thresholds: Sequence[float]) -> Choice:
    """Return what comes of thresholds."""
    limits = np.asarray(thresholds, dtype=np.float64).reshape(-1, 1)
    leaves = np.concatenate([sure >= limits, np.ones((1, right.shape[1]), dtype=bool)])
    at = leaves.argmax(0)
    shares = np.bincount(at, minlength=len(right)) / max(right.shape[1], 1)
    cost = float(shares @ costs.of([threshold != NEVER for threshold in thresholds]))
    return Choice(tuple(thresholds), at, int(right[at, np.arange(right.shape[1])].sum()), cost)


def _better(best: Choice, other: Choice, least: int) -> Choice:
    return other if other.right >= least and (best.right < least or other.cost < best.cost) else best


def _quantiles(values: Floats, count: int) -> list[float]:
    """Return thresholds that lie between the values at so many quantiles."""
    ordered = np.unique(values)
    places = np.unique(np.linspace(0, len(ordered) - 1, count).round().astype(int))
    return [_below(ordered, int(i)) for i in places]


def _below(ordered: Floats, i: int) -> float:
    """Return a number, as a file holds it, from which on the value at a place counts, and not the one before."""
    if i == 0:
        return 0.0
    middle = float(np.float32((ordered[i - 1] + ordered[i]) / 2))
    return middle if ordered[i - 1] < middle <= ordered[i] else float(ordered[i])


def _refined(
    thresholds: Sequence[float], k: int, sure: Floats, right: NDArray[np.bool_], costs: Costs, least: int
) -> tuple[float, ...]:
    """Return the thresholds with the best one for exit k; all are tried at once, by what leaves there, surest first."""
    changed = list(thresholds)
    changed[k] = NEVER
    without = outcome(sure, right, costs, changed)
    prices = costs.of([i == k or one != NEVER for i, one in enumerate(thresholds)])
    there = np.flatnonzero(without.at > k)
    order = there[np.argsort(-sure[k, there], kind="stable")]
    values = sure[k, order]
    if not len(order):
        return tuple(changed)
    gained = np.cumsum(right[k, order].astype(np.int64) - right[without.at[order], order])
    saved = np.cumsum(prices[without.at[order]] - prices[k])
    last = np.append(values[1:] != values[:-1], True)  # equal values leave together
    fits = last & (without.right + gained >= least)
    if not fits.any():
        return tuple(thresholds)
    count = int(np.argmax(np.where(fits, saved, -np.inf)))
    ordered = np.unique(sure[k])
    changed[k] = _below(ordered, int(np.searchsorted(ordered, values[count])))
    return tuple(changed)
