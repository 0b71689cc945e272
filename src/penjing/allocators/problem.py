"""What an allocator may know: sites, scores, bounds and the price of a plan. Nothing else reaches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np

from penjing.core.errors import Infeasible, PlanError
from penjing.core.plan import Entry, Plan
from penjing.core.random import stream
from penjing.core.search import Bound
from penjing.core.sites import Site, inside
from penjing.core.units import Floats, Ints

CLOSE = 1e-3
"""A plan within this share of its tightest bound is not worth filling."""

HIT = 1e-2
"""A plan further than this from its tightest bound is filled in finer steps, where that is allowed."""

REMEMBERED = 8192
"""Units of a site whose choices are all kept in memory; single weights are too many for each of their counts."""

LATELY = 4
"""Choices kept in memory of a site of more units: what is priced next mostly differs at one site."""

Shown = Callable[[str, float], str]
"""Writes a cost, given its name, for people."""

HeldBack = Callable[[Plan, str], str]
"""Says what most of a plan's cost of this name comes from; nothing where that is not known."""

Price = Callable[[Plan], Mapping[str, float]]
"""The cheap costs of a plan, by name."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Choose how many units each site keeps, so that every bound holds.

    ``scores`` rank the units of a site, and across sites where an allocator compares them. ``bounds`` are upper
    limits on costs that ``price`` tells, ``shown`` writes and ``held_back`` explains; ``seed`` feeds allocators that
    draw numbers. ``finer`` allows the last units to be filled in below the sites' step, so that an arithmetic bound is
    hit. ``minimise`` names what trials measure and a search seeks the least of: a cost, or ``"lost"``, the score of
    what a plan removes. An allocator that has something to tell of its choice puts a phrase into ``said``, and plain
    JSON data into ``facts``, which are filed with its search. ``priced`` is for what it asks about again and again.

    A site may lie within another, as channels lie in a block. Where nothing of the outer one stays, the inner ones go
    with it: plans say nothing of them, and of the score only that of the outer one is lost. The counts of the inner
    ones stand for what they keep once the outer one is back.
    """

    rewrite: str
    sites: Sequence[Site]
    scores: Mapping[str, Floats]
    bounds: Sequence[Bound]
    price: Price
    seed: int = 0
    finer: bool = False
    minimise: str = "lost"
    shown: Shown = lambda _, value: f"{value:.6g}"
    held_back: HeldBack = lambda *_: ""
    said: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    priced: dict[tuple[int, ...], Floats] = field(default_factory=dict, repr=False)
    _orders: dict[str, Ints] = field(default_factory=dict, repr=False)
    _entries: dict[str, dict[int, tuple[Entry, ...]]] = field(default_factory=dict, repr=False)

    def rng(self, name: str) -> np.random.Generator:
        """Return the random numbers of this name; the same ones each time."""
        return stream(self.seed, name)

    def order(self, site: Site) -> Ints:
        """Return the units of a site from best to worst; equal scores keep the order of the site."""
        if site.order is not None:
            return site.order
        if site.name not in self._orders:
            self._orders[site.name] = np.argsort(-self.scores[site.name], kind="stable")
        return self._orders[site.name]

    @cached_property
    def inner(self) -> Mapping[str, frozenset[str]]:
        """The names of the sites that lie within each site that has such."""
        return inside(self.sites)

    def outer(self, site: Site) -> list[Site]:
        """Return the sites that a site lies within."""
        return [one for one in self.sites if site.name in self.inner.get(one.name, ())]

    def taken(self, counts: Mapping[str, int]) -> set[str]:
        """Return the names of the sites that go with one of which these counts keep nothing."""
        return {name for outer, names in self.inner.items() if counts.get(outer) == 0 for name in names}

    def keep(self, counts: Mapping[str, int]) -> Plan:
        """Return the plan that keeps the best ``counts[site]`` units of each site that does not go with another."""
        taken = self.taken(counts)
        left = (site for site in self.sites if site.name not in taken)
        return Plan(tuple(entry for site in left for entry in self._kept(site, counts.get(site.name, site.size))))

    def _kept(self, site: Site, count: int) -> tuple[Entry, ...]:
        """Return what a plan says of a site that keeps its best ``count`` units: nothing where these are all."""
        mine = self._entries.setdefault(site.name, {})
        known = mine.pop(count, None)
        if known is None:
            stays = np.zeros(site.size, dtype=np.bool_)
            stays[self.order(site)[:count]] = True
            known = Plan.of(self.rewrite, {site.name: np.flatnonzero(stays)}, [site]).entries
            if site.size > REMEMBERED and len(mine) >= LATELY:
                del mine[next(iter(mine))]
        mine[count] = known
        return known

    def fits(self, plan: Plan) -> bool:
        """Tell whether a plan keeps every bound."""
        return self.excess(plan) <= 0

    def excess(self, plan: Plan) -> float:
        """Return by which share the worst bound is exceeded; zero or less when all are kept."""
        if not self.bounds:
            return -1.0
        costs = self.price(plan)
        return max(costs[b.cost] / b.limit - 1 for b in self.bounds)

    def exceeded(self, plan: Plan) -> list[Bound]:
        """Return the bounds that a plan does not keep."""
        costs = self.price(plan)
        return [b for b in self.bounds if costs[b.cost] > b.limit]

    def used(self, plan: Plan, bounds: Sequence[Bound]) -> float:
        """Return what a plan uses of these bounds, as shares of their limits, added up."""
        costs = self.price(plan)
        return sum(costs[b.cost] / b.limit for b in bounds)

    def lost(self, plan: Plan) -> float:
        """Return the score of everything that a plan removes; nothing counts beside the site that it goes with."""
        return sum(float(self.scores[e.site].sum() - self.scores[e.site][e.kept].sum()) for e in self.deciding(plan))

    def deciding(self, plan: Plan) -> list[Entry]:
        """Return the entries of a plan without those of sites that go with another."""
        taken = self.taken({entry.site: len(entry.kept) for entry in plan})
        return [entry for entry in plan if entry.site not in taken]

    def lost_more(self, counts: Mapping[str, int], site: Site, fewer: int) -> float:
        """Return the score that is lost beside that of ``counts`` where a site keeps only ``fewer`` of its units.

        A site that goes altogether costs only what is not lost already within it.
        """
        more = self._lost(site, fewer, counts[site.name])
        if fewer == 0 and site.name in self.inner:
            within = self.inner[site.name] - self.taken(counts)
            more -= sum(self._lost(one, counts[one.name], one.size) for one in self.sites if one.name in within)
        return more

    def _lost(self, site: Site, fewer: int, count: int) -> float:
        return float(self.scores[site.name][self.order(site)[fewer:count]].sum())

    def need_bounds(self, name: str) -> None:
        """Refuse a problem without a bound.

        Raises: PlanError naming the allocator.
        """
        if not self.bounds:
            raise PlanError(f"The allocator {name!r} needs a budget, such as macs=0.5x, to know when to stop.")

    def fit(self, counts_at: Callable[[float], dict[str, int]]) -> dict[str, int]:
        """Return the counts of the largest share in [0, 1] that keeps every bound; ``counts_at`` must not fall.

        Raises: Infeasible with the costs at share zero when even these exceed a bound.
        """
        low, high = 0.0, 1.0
        if self.fits(self.keep(counts_at(1.0))):
            return counts_at(1.0)
        least = self.keep(counts_at(0.0))
        if not self.fits(least):
            self.refuse(least)
        best = counts_at(0.0)
        for _ in range(30):
            middle = (low + high) / 2
            counts = counts_at(middle)
            if self.fits(self.keep(counts)):
                low, best = middle, counts
            else:
                high = middle
        return best

    def together(self, least: Mapping[str, int]) -> dict[str, int]:
        """Return the counts that lie equally far between the least and the whole of each site.

        Raises: Infeasible when the least do not keep the bounds.
        """

        def counts_at(share: float) -> dict[str, int]:
            found = {}
            for site in self.sites:
                low = least[site.name]
                half = 0.5 if low == 0 else 0.0  # what may go whole stays until half of everything goes
                found[site.name] = max(site.allowed(low + share * (site.size - low) + half), low)
            return found

        return self.fit(counts_at)

    def near(self, plan: Plan, factors: Floats | None = None) -> Plan:
        """Return a plan of the proportions of this one that keeps every bound and wastes little of them.

        Those of each site may first be multiplied by a factor of its own.

        Raises: Infeasible when no plan keeps the bounds.
        """
        whole = {site.name: site.size for site in self.sites} | {e.site: len(e.kept) for e in plan}
        each = np.ones(len(self.sites)) if factors is None else factors
        counts = {site.name: factor * whole[site.name] for site, factor in zip(self.sites, each, strict=True)}

        def counts_at(share: float) -> dict[str, int]:
            return {site.name: site.allowed(2 * share * counts[site.name] + 0.5) for site in self.sites}

        return self.keep(self.fill(self.fit(counts_at)))

    def refuse(self, least: Plan) -> None:
        """Raise Infeasible, naming what the smallest plan still costs and the sites that hold it back."""
        costs = dict(self.price(least))
        missed = [b for b in self.bounds if not b.met(costs[b.cost])]
        misses = [self._miss(b, costs[b.cost], least) for b in missed]
        whole = self.price(Plan())
        for bound in missed:
            if costs[bound.cost] == whole[bound.cost] and least.entries:
                text = f"Cutting {self.rewrite} does not lower {bound.cost} here; bound another cost"
                raise Infeasible(f"No plan meets the budget: {'; '.join(misses)}. {text}.", costs)
        stuck = [s.name for s in self.sites if s.fewest == s.size]
        held = f" {stuck[0]} cannot shrink in its step." if len(stuck) == 1 else ""
        if len(stuck) > 1:
            held = f" {len(stuck)} sites cannot shrink in their step, {stuck[0]} among them."
        raise Infeasible(f"No plan meets the budget: {'; '.join(misses)}.{held} Raise the bound.", costs)

    def _miss(self, bound: Bound, reached: float, least: Plan) -> str:
        asked, lowest = self.shown(bound.cost, bound.limit), self.shown(bound.cost, reached)
        why = self.held_back(least, bound.cost)
        return f"{bound.cost} {bound.asked} is {asked}, lowest reachable {lowest}" + (f", and {why}" if why else "")

    def fill(self, counts: dict[str, int], close: float = CLOSE) -> dict[str, int]:
        """Give units back, those of the best score for their cost first, while every bound holds.

        Counts that leave less than ``close`` of the tightest bound unused come back unchanged.
        """
        counts = dict(counts)
        excess = self.excess(self.keep(counts))
        step = max((site.step for site in self.sites), default=1)
        while self.bounds and excess <= -close:
            counts, excess = self._fill(counts, excess, step)
            if not self.finer or excess > -HIT or step == 1:
                break
            step //= 2
        return counts

    def _fill(self, counts: dict[str, int], excess: float, step: int) -> tuple[dict[str, int], float]:
        """Fill in steps of at most ``step``."""

        def more(site: Site) -> int:
            small = min(site.step, step)
            return site.above(counts[site.name], small)

        def gained(site: Site) -> float:
            return self.lost_more({**counts, site.name: more(site)}, site, counts[site.name])

        def worth(site: Site) -> float:
            return gained(site) / max(self.excess(self.keep({**counts, site.name: more(site)})) - excess, 1e-12)

        taken = self.taken(counts)
        open_ = [(i, s) for i, s in enumerate(self.sites) if counts[s.name] < s.size and s.name not in taken]
        heap = [(-worth(site), i) for i, site in open_]
        heapify(heap)
        while heap:
            _, i = heappop(heap)
            site = self.sites[i]
            then = more(site)
            if counts[site.name] == 0 and site.name in self.inner and gained(site) < 0:
                continue  # with what is cut within it, it would lose more than it does by being away
            found = self.excess(self.keep({**counts, site.name: then}))
            if found > 0:
                continue
            taken = self.taken(counts)
            counts, excess = {**counts, site.name: then}, found
            back = taken - self.taken(counts)
            for j, one in enumerate(self.sites):
                if counts[one.name] < one.size and (one is site or one.name in back):
                    heappush(heap, (-worth(one), j))
        return counts, excess
