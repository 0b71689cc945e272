"""Random search: the baseline that every cleverer search must beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from penjing.allocators.problem import Problem
from penjing.core.errors import PlanError
from penjing.core.plan import Plan
from penjing.core.registry import register
from penjing.core.search import Search

TOGETHER = 16
"""Plans asked about at once, whoever measures them, so that the number of workers changes nothing."""


@register("allocator")
@dataclass(frozen=True)
class random:  # noqa: N801  (registered under its own name)
    """Measure random widths that just keep the budget, and take the best.

    Each site keeps the share ``t ** exp(spread * z)`` of its units, at least ``floor``, with a normal ``z`` of its own
    and the largest ``t`` that keeps every bound. The first plan has ``z = 0``: the same share everywhere. Which units
    stay, the scores decide.

    Paper: Li et al., Revisiting Random Channel Pruning for Neural Network Compression, CVPR 2022, in spirit.
    Differs: they draw widths until one has the wanted size and train the best few; here each is fitted to the bounds.
    """

    trials: int = 64
    spread: float = 0.5
    floor: float = 0.05

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        if self.trials < 1:
            raise PlanError(f"random: trials must be 1 or more; got {self.trials}.")
        if not 0 <= self.spread <= 5:
            raise PlanError(f"random: spread must be from 0 to 5; got {self.spread}.")
        if not 0 <= self.floor < 1:
            raise PlanError(f"random: floor is the share that a site keeps, from 0 to below 1; got {self.floor}.")

    def __call__(self, problem: Problem) -> Search:
        """Search; the plan returned has the least of what is minimised.

        Raises: Infeasible when the budget cannot be met; PlanError without a budget.
        """
        problem.need_bounds("random")
        rng = problem.rng("allocator/random")
        tried = []
        for start in range(0, self.trials, TOGETHER):
            numbers = range(start, min(start + TOGETHER, self.trials))
            drawn = [rng.standard_normal(len(problem.sites)) if i else np.zeros(len(problem.sites)) for i in numbers]
            tried += yield [self.fitted(problem, z) for z in drawn]
        return min(tried, key=lambda trial: trial[problem.minimise]).plan

    def fitted(self, problem: Problem, z: np.ndarray) -> Plan:
        """Return the plan of these normal numbers, one a site, that just keeps the bounds.

        Raises: Infeasible when the budget cannot be met.
        """
        powers = np.exp(self.spread * z)

        def counts_at(t: float) -> dict[str, int]:
            shares = np.maximum(t**powers, self.floor if t else 0.0)
            return {
                site.name: site.allowed(share * site.size + 0.5)
                for site, share in zip(problem.sites, shares, strict=True)
            }

        return problem.keep(problem.fill(problem.fit(counts_at)))
