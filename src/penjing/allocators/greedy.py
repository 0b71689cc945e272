"""Take units away one step at a time, always where the least score is lost for what is saved."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from penjing.allocators.problem import Problem
from penjing.core.registry import register
from penjing.core.types import Plan, Site


@register("allocator")
@dataclass(frozen=True)
class greedy:  # noqa: N801  (registered under its own name)
    """Shrink the site with the smallest loss of score per saving until every bound holds.

    A step that saves nothing (inside a latency staircase) is never taken alone: the next count that saves is tried.
    ``floor`` is the share that every site keeps.

    Paper: Yang et al., NetAdapt, ECCV 2018, the outer loop, with scores in place of short fine-tuning; and Shen et
    al., HALP, NeurIPS 2022, whose knapsack this approximates.
    Differs: units go in order of score and are never taken back, except by the final fill.
    """

    floor: float = 0.1

    def __call__(self, problem: Problem) -> Plan:
        """Return the plan.

        Raises: Infeasible when the budget cannot be met; PlanError without a budget.
        """
        problem.need_bounds("greedy")
        counts = {site.name: site.size for site in problem.sites}
        excess = problem.excess(problem.keep(counts))
        heap = []
        for i, site in enumerate(problem.sites):
            move = self._move(problem, site, counts, excess)
            if move is not None:
                heap.append((*move, i))
        heapify(heap)
        while excess > 0 and heap:
            _, _, i = heappop(heap)
            site = problem.sites[i]
            move = self._move(problem, site, counts, excess)
            if move is None:
                continue
            if heap and move[0] > heap[0][0]:  # the queue held an older price; put it back with today's
                heappush(heap, (*move, i))
                continue
            counts[site.name] = move[1]
            excess = problem.excess(problem.keep(counts))
            following = self._move(problem, site, counts, excess)
            if following is not None:
                heappush(heap, (*following, i))
        if excess > 0:
            problem.refuse(problem.keep(counts))
        return problem.keep(problem.fill(counts))

    def _move(self, problem: Problem, site: Site, counts: dict[str, int], excess: float) -> tuple[float, int] | None:
        """Return (score lost per share saved, count after) of the next count that saves anything."""
        now = counts[site.name]
        fewer = now
        while fewer > max(site.fewest, site.allowed(self.floor * site.size)):
            fewer = site.below(fewer)
            saved = excess - problem.excess(problem.keep({**counts, site.name: fewer}))
            if saved > 1e-12:
                lost = float(problem.scores[site.name][problem.order(site)[fewer:now]].sum())
                return lost / saved, fewer
        return None
