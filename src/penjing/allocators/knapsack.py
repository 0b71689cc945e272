"""Choose the counts of all sites together, by a knapsack that is solved to a proven gap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from penjing.allocators.around import Around, Losses
from penjing.allocators.greedy import greedy
from penjing.allocators.problem import Problem
from penjing.allocators.simple import global_, uniform
from penjing.core.errors import PlanError
from penjing.core.registry import register
from penjing.core.types import Plan, Search

MOVES = 20_000
"""Where sites have more counts than this together, greedy, which goes through them one by one, is no start."""


@register("allocator")
@dataclass(frozen=True)
class knapsack:  # noqa: N801  (registered under its own name)
    """Choose all counts together so that the least score is lost, solved to a proven gap.

    Each count of a site is an option with a loss and with what it costs of every bound; one option a site is chosen by
    a multiple-choice knapsack. A layer costs by two sites and in steps, so that the costs are those around a plan: the
    knapsack is solved and priced anew until nothing is won, from the plans of uniform, global and greedy, whose best
    it never falls behind. ``gap`` is how far each knapsack's answer may lie above the least possible, as a share;
    ``seconds`` ends one that takes long. ``floor`` is the share that every site keeps, as long as the budget allows.

    Paper: Shen et al., HALP, NeurIPS 2022, sections 3.2 and 3.3: latency-saliency knapsack.
    Differs: all counts of a site are options of one choice, any number of bounds, and an exact solver.
    """

    floor: float = 0.1
    gap: float = 1e-3
    seconds: float = 10.0

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        if not 0 <= self.floor < 1:
            raise PlanError(f"knapsack: floor is the share that a site keeps, from 0 to below 1; got {self.floor}.")
        for name in ("gap", "seconds"):
            if not getattr(self, name) >= 0:
                raise PlanError(f"knapsack: {name} must be 0 or more; got {getattr(self, name)}.")

    def __call__(self, problem: Problem) -> Search:
        """Search; asks for measurements only where greedy, one of its starts, does.

        Raises: Infeasible when the budget cannot be met; PlanError without a budget.
        """
        problem.need_bounds("knapsack")
        starts = [uniform()(problem), global_()(problem)]
        if sum(site.size / site.step for site in problem.sites) <= MOVES:
            starts.append((yield from greedy(self.floor)(problem)))
        return self._settled(problem, by_scores(problem), starts)

    def _settled(self, problem: Problem, losses: Losses, starts: list[Plan]) -> Plan:
        around = Around(problem, losses, self._least(problem), self.gap, self.seconds)
        return problem.keep(around.settle([_counts(problem, plan) for plan in starts]).counts)

    def _least(self, problem: Problem) -> dict[str, int]:
        """Return the fewest units of each site that are options."""
        least = {site.name: max(site.fewest, site.allowed(self.floor * site.size)) for site in problem.sites}
        return least if problem.fits(problem.keep(least)) else {site.name: site.fewest for site in problem.sites}


def by_scores(problem: Problem) -> Losses:
    """Return the score that each count of a site loses."""
    found = {}
    for site in problem.sites:
        ranked = problem.scores[site.name][problem.order(site)]
        found[site.name] = np.append(np.cumsum(ranked[::-1])[::-1], 0.0)
    return found


def _counts(problem: Problem, plan: Plan) -> dict[str, int]:
    return {site.name: site.size for site in problem.sites} | {entry.site: len(entry.kept) for entry in plan}
