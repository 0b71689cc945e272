"""Decide one site after the other, so that those to come can still keep every bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from penjing.allocators.problem import Problem
from penjing.core.sites import Site
from penjing.core.units import Floats


@dataclass(frozen=True, eq=False)
class Episode:
    """What was decided: how many units each site keeps, the state each decision was taken in, and the share kept.

    Shapes: states [sites, FEATURES].
    """

    counts: dict[str, int]
    states: Floats
    actions: Sequence[float]


FEATURES = 7
"""Position, kind and size of a site, what it can save, what is saved so far and can be yet, and the last action."""


@dataclass(eq=False)
class Walk:
    """Goes through the sites of a problem in their order; at each, an action is the share of its units that stays.

    An action is rounded to the site's step and held back by a wall: with what was decided before, and all sites to come
    at their least, every bound must hold. So each episode ends within the budget, whatever costs it bounds, as long as
    keeping fewer units never costs more. What it leaves of the budget is given back, and the episode is told as if it
    had been decided so. No site keeps less than the share ``floor``, as long as the budget allows.

    Raises: Infeasible when no plan keeps the bounds.
    Paper: He et al., AMC, ECCV 2018, algorithm 1.
    Differs: there the wall is a formula for FLOPs; here the price of the plan is asked, by interpolation and bisection.
    A state has no stride or kernel, which a problem does not know, and tells in their place what the site can save.
    There nothing is given back.
    """

    problem: Problem
    floor: float = 0.0
    least: dict[str, int] = field(init=False)
    _static: Floats = field(init=False)

    def __post_init__(self) -> None:
        """Find the least of each site, and what does not change about it."""
        sites = self.problem.sites
        self.least = {site.name: max(site.fewest, site.allowed(self.floor * site.size)) for site in sites}
        if self._used(self.least).max() > 1:
            self.least = {site.name: site.fewest for site in sites}
            if self._used(self.least).max() > 1:
                self.problem.refuse(self.problem.keep(self.least))
        self._whole = float(self._used({}).sum())
        kinds = sorted({site.rewrite or site.kind for site in sites})
        alone = [self._whole - self._used({site.name: self.least[site.name]}).sum() for site in sites]
        columns = [
            np.arange(len(sites)),
            np.array([kinds.index(site.rewrite or site.kind) for site in sites]),
            np.array([site.size for site in sites]),
            np.array(alone),
        ]
        self._static = np.stack([_scaled(column.astype(np.float64)) for column in columns], axis=1)

    def _used(self, counts: Mapping[str, int]) -> Floats:
        """Return what a plan uses of each bound, as a share of its limit."""
        costs = self.problem.price(self.problem.keep(counts))
        return np.array([costs[bound.cost] / bound.limit for bound in self.problem.bounds])

    def decide(self, act: Callable[[Floats], float]) -> Episode:
        """Return the episode in which ``act`` chooses a share for each state."""
        walled = self._along(lambda counts, site, state: self._walled(counts, site, act(state)))
        spent = self._spent(walled.counts)
        return walled if spent == walled.counts else self._along(lambda _, site, __: spent[site.name])

    def _along(self, choose: Callable[[Mapping[str, int], Site, Floats], int]) -> Episode:
        """Return the episode of the counts that are chosen, site after site."""
        counts = dict(self.least)
        states, actions = [], [1.0]
        for t, site in enumerate(self.problem.sites):
            states.append(self._state(t, counts, actions[-1]))
            counts[site.name] = choose(counts, site, states[-1])
            actions.append(counts[site.name] / site.size)
        return Episode(counts, np.stack(states), actions[1:])

    def _spent(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Return counts that waste little of the budget: all sites get the same share back of what they lost."""

        def counts_at(share: float) -> dict[str, int]:
            found = {}
            for site in self.problem.sites:
                count = counts[site.name]
                found[site.name] = max(site.allowed(count + share * (site.size - count)), count)
            return found

        return self.problem.fill(self.problem.fit(counts_at))

    def _state(self, t: int, counts: Mapping[str, int], before: float) -> Floats:
        """Return the state before site ``t`` is decided, those to come being at their least in ``counts``."""
        sites = self.problem.sites
        to_come = {site.name: site.size for site in sites[t:]}
        open_ = float(self._used({**counts, **to_come}).sum())
        held = float(self._used(counts).sum())
        dynamic = [(self._whole - open_) / self._whole, (open_ - held) / self._whole, before]
        state: Floats = np.clip(np.append(self._static[t], dynamic), 0.0, 1.0)
        return state

    def _walled(self, counts: Mapping[str, int], site: Site, share: float) -> int:
        """Return the count nearest to a share that leaves every bound within reach."""
        least, step = self.least[site.name], site.step

        def count(i: int) -> int:
            return min(least + i * step, site.size)

        def excess(i: int) -> float:
            return float(self._used({**counts, site.name: count(i)}).max()) - 1

        wanted = max(site.allowed(share * site.size + step / 2), least)
        low, high = 0, -(-(wanted - least) // step)
        if high == 0 or (above := excess(high)) <= 0:
            return wanted
        below, halve = excess(low), False
        while high - low > 1:
            # Costs are straight in the count, or nearly: the line through the ends tells more than the middle.
            line = low + int((high - low) * -below / (above - below))
            i = (low + high) // 2 if halve else min(max(line, low + 1), high - 1)
            found, width = excess(i), high - low
            if found <= 0:
                low, below = i, found
            else:
                high, above = i, found
            halve = not halve and high - low > width / 2
        return count(low)


def _scaled(values: Floats) -> Floats:
    """Return values moved and scaled to [0, 1]; zeros where all are equal."""
    spread = float(np.ptp(values))
    scaled: Floats = (values - values.min()) / spread if spread > 0 else np.zeros_like(values)
    return scaled
