"""Take units away one step at a time, always where the least score is lost for what is saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from penjing.allocators.problem import Problem
from penjing.core.errors import PlanError
from penjing.core.registry import register
from penjing.core.search import Bound, Search
from penjing.core.sites import Site

LEAPS = 16
"""How many counts a site is asked about, at most, that leaps over those that are not worth having."""


@register("allocator")
@dataclass(frozen=True)
class greedy:  # noqa: N801  (registered under its own name)
    """Shrink the site with the smallest loss of score per saving until every bound holds.

    What is saved is added up over the bounds that are still exceeded, so that a move may serve any of them. A step
    that saves nothing (inside a latency staircase) is never taken alone: the next count that saves is tried. Where a
    site saves nothing however far it shrinks (activations that make one peak together), single moves mislead: all
    sites are then shrunk by one share as well, and of the two plans the better is taken, as measured.
    ``floor`` is the share that every site keeps, as long as the budget allows.

    Paper: Yang et al., NetAdapt, ECCV 2018, the outer loop, with scores in place of short fine-tuning; and Shen et
    al., HALP, NeurIPS 2022, whose knapsack this approximates.
    Differs: units go in order of score and are never taken back, except by the final fill. A site that goes with all
    that lies within it loses its own score less what is lost within it already.
    """

    floor: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        if not 0 <= self.floor < 1:
            raise PlanError(f"greedy: floor is the share that a site keeps, from 0 to below 1; got {self.floor}.")

    def __call__(self, problem: Problem) -> Search:
        """Search; asks for measurements only where there are two plans to choose from.

        Raises: Infeasible when the budget cannot be met; PlanError without a budget.
        """
        problem.need_bounds("greedy")
        counts, peaked = self._descend(problem)
        plans = [problem.keep(problem.fill(counts))] if problem.fits(problem.keep(counts)) else []
        if peaked or not plans:
            # A peak is met exactly long before everything below it is as wide as it may be, so it is filled up.
            plans.append(problem.keep(problem.fill(self._together(problem), close=0.0)))
        if len(plans) == 1:
            return plans[0]
        trials = yield plans
        return min(trials, key=lambda trial: trial[problem.minimise]).plan

    def _descend(self, problem: Problem) -> tuple[dict[str, int], bool]:
        """Take the best moves until every bound holds or none saves anything; tell whether some site saved nothing."""
        peaked = False
        counts = {site.name: site.size for site in problem.sites}
        exceeded = problem.exceeded(problem.keep(counts))
        moved = True
        while exceeded and moved:  # a site that saves nothing now may save when others have moved: all are asked again
            moved = False
            taken = problem.taken(counts)
            asked = [(i, site) for i, site in enumerate(problem.sites) if site.name not in taken]
            priced = [(self._move(problem, site, counts, exceeded), i) for i, site in asked]
            heap = [(*move, i) for move, i in priced if move is not None]
            peaked |= any(m is None and counts[(s := problem.sites[i]).name] > self._least(s) for m, i in priced)
            heapify(heap)
            while exceeded and heap:
                _, _, i = heappop(heap)
                site = problem.sites[i]
                move = self._move(problem, site, counts, exceeded)
                if move is None:
                    continue
                if heap and move[0] > heap[0][0]:  # the queue held an older price; put it back with today's
                    heappush(heap, (*move, i))
                    continue
                counts[site.name], moved = move[1], True
                exceeded = problem.exceeded(problem.keep(counts))
                following = self._move(problem, site, counts, exceeded)
                if following is not None:
                    heappush(heap, (*following, i))
        return counts, peaked

    def _together(self, problem: Problem) -> dict[str, int]:
        """Shrink all sites by one share, towards their floors or, where that is not enough, the fewest they may keep.

        Raises: Infeasible when the fewest do not meet the budget.
        """
        least = {site.name: self._least(site) for site in problem.sites}
        if not problem.fits(problem.keep(least)):
            least = {site.name: site.fewest for site in problem.sites}
        return problem.together(least)

    def _least(self, site: Site) -> int:
        return max(site.fewest, site.allowed(self.floor * site.size))

    def _move(
        self, problem: Problem, site: Site, counts: Mapping[str, int], exceeded: Sequence[Bound]
    ) -> tuple[float, int] | None:
        """Return (score lost per share saved, count after) of the next count that saves anything.

        A site that is whole and has ``most`` jumps to where that ratio is least: just below the gap little is saved.
        """
        if site.name in problem.taken(counts):
            return None
        now, least = counts[site.name], self._least(site)
        before = problem.used(problem.keep(counts), exceeded)
        leaps = now == site.size and bool(site.most)
        stride = max(1, site.most // (LEAPS * site.step)) * site.step if leaps else site.step
        fewer, best = now, None
        while fewer > least and (best is None or leaps):
            fewer = max(site.below(fewer) if fewer == now else site.allowed(fewer - stride), least)
            saved = before - problem.used(problem.keep({**counts, site.name: fewer}), exceeded)
            if saved > 1e-12:
                found = problem.lost_more(counts, site, fewer) / saved, fewer
                best = found if best is None else min(best, found)
        return best
