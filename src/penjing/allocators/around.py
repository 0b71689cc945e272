"""Find the plan of least loss by solving the knapsack again and again, each time priced around the best plan so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from penjing.allocators.problem import Problem
from penjing.allocators.sensitivity import Losses
from penjing.allocators.solve import solve
from penjing.core.types import Floats, Site

OPTIONS = 30
"""Counts of a site that the first round looks at, at most."""

FEWER = 12
"""Counts of a site that later rounds look at, at most."""

ROUNDS = 16
"""Plans that costs are priced around, at most."""

CORRECTIONS = 5
"""How often the limits of a round are moved by what its answer really costs, at most."""

ENOUGH = 1e-3
"""A round that saves a smaller share of the loss is the last, once no wider one is left."""


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
    near the best plan so far, first all over, then half as far each time.
    """

    problem: Problem
    losses: Losses
    least: Mapping[str, int]
    gap: float = 1e-3
    seconds: float = 10.0
    _priced: dict[tuple[int, ...], Floats] = field(default_factory=dict)

    def settle(self, starts: Sequence[Mapping[str, int]]) -> Settled:
        """Return the best plan found from the best of these, all of which keep every bound."""
        best = self._started([*starts, self._together()])
        for round_ in range(1, ROUNDS + 1):
            reach, several = 0.5 ** (round_ - 1), OPTIONS if round_ == 1 else FEWER
            options = [self._options(site, best.counts[site.name], reach, several) for site in self.problem.sites]
            found = self._round(best, options, round_)
            won, best = best.loss - found.loss, found
            if won <= ENOUGH * abs(best.loss) and max(map(len, options)) <= 3:
                break
        return best

    def _started(self, starts: Sequence[Mapping[str, int]]) -> Settled:
        """Return the best of these that keep every bound once no site keeps less than its least."""
        raised = [{name: max(counts[name], least) for name, least in self.least.items()} for counts in starts]
        fitting = [counts for counts in raised if (self._price(counts) <= self._limits).all()]
        best = self.problem.fill(min(fitting, key=self.loss))
        return Settled(best, self.loss(best), 0, math.inf, False)

    def _together(self) -> dict[str, int]:
        """Return the counts that lie equally far between the least and the whole of each site."""

        def counts_at(share: float) -> dict[str, int]:
            found = {}
            for site in self.problem.sites:
                least = self.least[site.name]
                found[site.name] = max(site.allowed(least + share * (site.size - least)), least)
            return found

        return self.problem.fit(counts_at)

    def loss(self, counts: Mapping[str, int]) -> float:
        """Return what a plan of these counts loses."""
        return sum(float(self.losses[site.name][counts[site.name]]) for site in self.problem.sites)

    def _round(self, best: Settled, options: Sequence[list[int]], round_: int) -> Settled:
        """Return the best plan of these options that a knapsack priced around ``best`` leads to, or ``best`` again."""
        centre, limits = best.counts, self._limits
        base = self._price(centre)
        losses = [self.losses[s.name][counts] for s, counts in zip(self.problem.sites, options, strict=True)]
        costs = [
            np.array([self._price({**centre, site.name: n}) - base for n in counts])
            for site, counts in zip(self.problem.sites, options, strict=True)
        ]
        room, seen = limits - base, {tuple(centre.values())}
        gap, proven, found = best.gap, best.proven, centre
        for _ in range(CORRECTIONS):
            solution = solve(losses, costs, room, gap=self.gap, seconds=self.seconds)
            if solution is None:
                break
            gap, proven = solution.gap, solution.proven
            counts = {s.name: int(o[j]) for s, o, j in zip(self.problem.sites, options, solution.choice, strict=True)}
            left = limits - self._price(counts)
            if (left >= 0).all() and self.loss(counts) < self.loss(found):
                found = counts
            if tuple(counts.values()) in seen:
                break
            seen.add(tuple(counts.values()))
            room = left + sum(cost[j] for cost, j in zip(costs, solution.choice, strict=True))
        found = found if found is centre else self.problem.fill(found)
        return Settled(found, self.loss(found), round_, gap, proven)

    def _options(self, site: Site, now: int, reach: float, several: int) -> list[int]:
        """Return the counts to look at: of those within reach no more than ``several``, evenly spread, with ``now``."""
        least = self.least[site.name]
        counts = sorted({now, least, *(site.allowed(n) for n in range(least, site.size, site.step)), site.size})
        middle, far = counts.index(now), max(math.ceil(reach * len(counts)), 1)
        near = counts[max(middle - far, 0) : middle + far + 1]
        picked = np.unique(np.linspace(0, len(near) - 1, several - 1).round().astype(int))
        return sorted({now, *(near[i] for i in picked)} if len(near) > several else near)

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
