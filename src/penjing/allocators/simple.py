"""Allocators that need no search: the same share everywhere, one ranking over all sites, a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from penjing.allocators.problem import Problem
from penjing.allocators.sensitivity import ranked
from penjing.core.plan import Plan
from penjing.core.registry import register


@register("allocator")
@dataclass(frozen=True)
class uniform:  # noqa: N801  (registered under its own name)
    """Keep the same share of every site, the largest that meets the budget; ``keep`` sets the share instead.

    What rounding leaves over is given back to the units that are worth most for their cost.
    """

    keep: float | None = None

    def __call__(self, problem: Problem) -> Plan:
        """Return the plan.

        Raises: Infeasible when the budget cannot be met; PlanError without budget and share.
        """

        def counts(share: float) -> dict[str, int]:
            return {site.name: site.allowed(share * site.size + 0.5) for site in problem.sites}

        if self.keep is not None:
            return problem.keep(counts(self.keep))
        problem.need_bounds("uniform")
        return problem.keep(problem.fill(problem.fit(counts)))


@register("allocator")
@dataclass(frozen=True)
class global_:  # noqa: N801  (registered under its own name)
    """Rank the units of all sites together and keep the best, as many as the budget allows.

    ``floor`` is the share that every site keeps whatever its scores, so that no layer is emptied.
    """

    floor: float = 0.05

    def __call__(self, problem: Problem) -> Plan:
        """Return the plan.

        Raises: Infeasible when the budget cannot be met; PlanError without a budget.
        """
        problem.need_bounds("global")
        order = {site.name: ranked(problem.scores[site.name], site) for site in problem.sites}
        every = np.sort(np.concatenate(list(order.values())))[::-1]

        def counts(share: float) -> dict[str, int]:
            cut = every[min(int(share * len(every)), len(every) - 1)] if share < 1 else -np.inf
            found = {}
            for site in problem.sites:
                above = int(np.searchsorted(-order[site.name], -cut, side="right")) if share > 0 else 0
                found[site.name] = site.allowed(max(above, self.floor * site.size) + 0.5 * site.step)
            return found

        return problem.keep(problem.fill(problem.fit(counts)))


@register("allocator")
@dataclass(frozen=True)
class threshold:  # noqa: N801  (registered under its own name)
    """Keep the units whose score is above ``k``; the budget is checked, not sought.

    With the criterion ``deviation`` on weights this is the 3-sigma rule: the bulk within ``k`` standard deviations
    of the mean goes, the outliers stay; at 3 that is for layers far too wide, and the ruin of small ones. To have
    ``k`` found from a budget instead, take ``global`` with that criterion and ``floor`` zero, or ``uniform`` for a
    ``k`` of each layer.
    """

    k: float = 3.0

    absolute: ClassVar[bool] = True
    """Scores are compared with a number of the allocator's own, so they are not divided by their site's mean."""

    def __call__(self, problem: Problem) -> Plan:
        """Return the plan.

        Raises: Infeasible when it does not meet the budget.
        """
        counts = {}
        for site in problem.sites:
            above = int((ranked(problem.scores[site.name], site) > self.k).sum())
            counts[site.name] = site.allowed(above + site.step - 1)
        plan = problem.keep(counts)
        if not problem.fits(plan):
            problem.refuse(plan)
        return plan
