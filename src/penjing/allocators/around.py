"""Find the plan of least loss by solving the knapsack again and again, each time priced around the best plan so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from penjing.allocators.problem import Problem
from penjing.allocators.solve import solve
from penjing.core.types import Floats, Site

OPTIONS = 30
"""Counts of a site that one round looks at, at most."""

ROUNDS = 16
"""Plans that costs are priced around, at most."""

CORRECTIONS = 5
"""How often the limits of a round are moved by what its answer really costs, at most."""

ENOUGH = 1e-3
"""A round that saves a smaller share of the loss ends its reach."""

Losses = Mapping[str, Floats]
"""By site, what a plan loses there that keeps so many units: [size + 1]."""


@dataclass(frozen=True, eq=False)
class Settled:
    """A plan's counts, what they lose, how often costs were priced anew, and the last knapsack's gap."""

    counts: dict[str, int]
    loss: float
    rounds: int
    gap: float
    proven: bool


@dataclass(eq=False)
class Around:
    """Seeks the plan of least loss, of plans that keep ``least`` units a site and every bound.

    A layer costs by what it reads and by what it writes, so no cost is a sum over sites; around a plan it nearly is:
    each option is priced with all other sites as they are. The knapsack's answer is priced exactly, and where it
    misses a bound or wastes some, the limits are moved by as much and it is solved again. Each round looks at counts
    within a ``reach`` of the best plan, first at all, then at half as many each time that little is won.
    """

    problem: Problem
    losses: Losses
    least: Mapping[str, int]
    gap: float = 1e-3
    seconds: float = 10.0
    _priced: dict[tuple[int, ...], Floats] = field(default_factory=dict)

    def settle(self, starts: Sequence[Mapping[str, int]]) -> Settled:
        """Return the best plan found from the best of these, all of which keep every bound."""
        best = Settled(dict(min(starts, key=self.loss)), math.inf, 0, math.inf, False)
        best = self._with(best, self.problem.fill(best.counts))
        reach = 1.0
        for round_ in range(1, ROUNDS + 1):
            found = self._round(best, reach, round_)
            won = best.loss - found.loss
            wide = any(len(self._options(site, best.counts[site.name], reach)) > 3 for site in self.problem.sites)
            best = found
            if won <= ENOUGH * abs(best.loss):
                if not wide:
                    break
                reach /= 2
        return best

    def loss(self, counts: Mapping[str, int]) -> float:
        """Return what a plan of these counts loses."""
        return sum(float(self.losses[site.name][counts[site.name]]) for site in self.problem.sites)

    def _with(self, settled: Settled, counts: dict[str, int]) -> Settled:
        return Settled(counts, self.loss(counts), settled.rounds, settled.gap, settled.proven)

    def _round(self, best: Settled, reach: float, round_: int) -> Settled:
        """Return the best plan that a knapsack priced around ``best`` leads to, or ``best`` again."""
        centre, limits = best.counts, self._limits
        base = self._price(centre)
        options = [self._options(site, centre[site.name], reach) for site in self.problem.sites]
        losses = [self.losses[s.name][counts] for s, counts in zip(self.problem.sites, options, strict=True)]
        costs = [
            np.array([self._price({**centre, site.name: n}) - base for n in counts])
            for site, counts in zip(self.problem.sites, options, strict=True)
        ]
        room, seen = limits - base, {tuple(centre.values())}
        found = Settled(centre, best.loss, round_, best.gap, best.proven)
        for _ in range(CORRECTIONS):
            solution = solve(losses, costs, room, gap=self.gap, seconds=self.seconds)
            if solution is None:
                break
            found = Settled(found.counts, found.loss, round_, solution.gap, solution.proven)
            counts = {s.name: int(o[j]) for s, o, j in zip(self.problem.sites, options, solution.choice, strict=True)}
            left = limits - self._price(counts)
            if (left >= 0).all() and self.loss(filled := self.problem.fill(counts)) < found.loss:
                found = self._with(found, filled)
            if tuple(counts.values()) in seen:
                break
            seen.add(tuple(counts.values()))
            room = left + sum(cost[j] for cost, j in zip(costs, solution.choice, strict=True))
        return found

    def _options(self, site: Site, now: int, reach: float) -> list[int]:
        """Return the counts to look at: of those within reach, no more than ``OPTIONS``, evenly spread, and ``now``."""
        least = self.least[site.name]
        counts = sorted({now, least, *(site.allowed(n) for n in range(least, site.size, site.step)), site.size})
        middle, far = counts.index(now), max(math.ceil(reach * len(counts)), 1)
        near = counts[max(middle - far, 0) : middle + far + 1]
        picked = np.unique(np.linspace(0, len(near) - 1, OPTIONS - 1).round().astype(int))
        return sorted({now, *(near[i] for i in picked)} if len(near) > OPTIONS else near)

    @property
    def _limits(self) -> Floats:
        return np.array([bound.limit for bound in self.problem.bounds])

    def _price(self, counts: Mapping[str, int]) -> Floats:
        """Return what a plan of these counts costs of each bound; each plan is priced once."""
        key = tuple(counts[site.name] for site in self.problem.sites)
        if key not in self._priced:
            costs = self.problem.price(self.problem.keep(counts))
            self._priced[key] = np.array([costs[bound.cost] for bound in self.problem.bounds])
        return self._priced[key]
