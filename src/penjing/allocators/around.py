"""Find the plan of least loss by solving the knapsack again and again, each time priced around the best plan so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penjing.allocators.cover import Within
from penjing.allocators.problem import Problem
from penjing.allocators.sensitivity import Losses
from penjing.allocators.solve import TAKEN, solve
from penjing.core.sites import Site
from penjing.core.units import Floats

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
    each option is priced with all other sites as they are, and what lies within a site with that site whole. The
    knapsack's answer is priced exactly, and where it misses a bound or wastes some, the limits are moved by as much and
    it is solved again. Each round looks at counts near the best plan so far, first all over, then half as far each
    time.
    """

    problem: Problem
    losses: Losses
    least: Mapping[str, int]
    gap: float = 1e-3
    seconds: float = 10.0

    def settle(self, starts: Sequence[Mapping[str, int]]) -> Settled:
        """Return the best plan found from the best of these, all of which keep every bound."""
        best = self._started([*starts, self.problem.together(self.least)])
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
        best = self._filled(min(fitting, key=self.loss))
        return Settled(best, self.loss(best), 0, math.inf, False)

    def loss(self, counts: Mapping[str, int]) -> float:
        """Return what a plan of these counts loses."""
        taken = self.problem.taken(counts)
        left = (site.name for site in self.problem.sites if site.name not in taken)
        return sum(float(self.losses[name][counts[name]]) for name in left)

    def _round(self, best: Settled, options: Sequence[list[int]], round_: int) -> Settled:
        """Return the best plan of these options that a knapsack priced around ``best`` leads to, or ``best`` again."""
        sites, limits, centre = self.problem.sites, self._limits, best.counts
        losses = [self.losses[s.name][counts] for s, counts in zip(sites, options, strict=True)]
        costs = [self._costs(site, counts, centre) for site, counts in zip(sites, options, strict=True)]
        within = self._within(options)
        room, seen = limits - self._price(centre), {self._key(centre)}
        gap, proven, found = best.gap, best.proven, centre
        for _ in range(CORRECTIONS):
            solution = solve(losses, costs, room, within=within, gap=self.gap, seconds=self.seconds)
            if solution is None:
                break
            gap, proven = solution.gap, solution.proven
            chosen = {i: j for i, j in enumerate(solution.choice) if j != TAKEN}
            counts = {**centre, **{sites[i].name: int(options[i][j]) for i, j in chosen.items()}}
            left = limits - self._price(counts)
            if (left >= 0).all() and self.loss(counts) < self.loss(found):
                found = counts
            if self._key(counts) in seen:
                break
            seen.add(self._key(counts))
            room = left + sum(costs[i][j] for i, j in chosen.items())
        found = found if found is centre else self._filled(found)
        return Settled(found, self.loss(found), round_, gap, proven)

    def _filled(self, counts: dict[str, int]) -> dict[str, int]:
        """Give back what there is room for, unless a block comes back by its score that had better stay away."""
        return min(self.problem.fill(counts), counts, key=self.loss)

    def _costs(self, site: Site, counts: Sequence[int], centre: Mapping[str, int]) -> Floats:
        """Return what each count of a site adds to the price of the centre, or of the centre with the site there."""
        there = {one.name: one.size for one in self.problem.outer(site) if centre[one.name] == 0}
        base = self._price({**centre, **there})
        return np.array([self._price({**centre, **there, site.name: n}) - base for n in counts])

    def _within(self, options: Sequence[list[int]]) -> Within:
        """Return, for each site within another, that one and which of its options keeps nothing."""
        number = {site.name: i for i, site in enumerate(self.problem.sites)}
        pairs = ((i, number.get(site.within)) for i, site in enumerate(self.problem.sites))
        return {i: (j, options[j].index(0)) for i, j in pairs if j is not None and 0 in options[j]}

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

    def _key(self, counts: Mapping[str, int]) -> tuple[int, ...]:
        """Return what makes a plan: the count of each site, and nothing of those that go with another."""
        taken = self.problem.taken(counts)
        return tuple(TAKEN if site.name in taken else counts[site.name] for site in self.problem.sites)

    def _price(self, counts: Mapping[str, int]) -> Floats:
        """Return what a plan of these counts costs of each bound; each plan is priced once."""
        key = self._key(counts)
        if key not in self.problem.priced:
            costs = self.problem.price(self.problem.keep(counts))
            self.problem.priced[key] = np.array([costs[bound.cost] for bound in self.problem.bounds])
        return self.problem.priced[key]
