"""Ranks of all layers under any budget, by the product of what each keeps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from penjing.allocators.around import Around
from penjing.allocators.problem import Problem
from penjing.allocators.sensitivity import losing
from penjing.allocators.simple import global_, uniform
from penjing.core.plan import Plan
from penjing.core.registry import register
from penjing.core.sites import Site
from penjing.core.units import Floats

FAINT = 1e-9
"""The share that a site counts as keeping which keeps nothing, so that a product of others can still be compared."""


@register("allocator")
@dataclass(frozen=True)
class eigenvalue_product:  # noqa: N801  (registered under its own name)
    """Keep the product of the shares of energy that sites keep as large as the budget allows.

    What a unit scores is its energy: of ranks, the squared singular value or the variance of responses. No site is
    starved for others, since a share near zero makes the product so, and scores need not compare across sites.

    Paper: Zhang, Zou, He, Sun, Accelerating Very Deep Convolutional Networks for Classification and Detection, TPAMI
    2016, section 3.5. Differs: the paper takes ranks away one by one, under a number of MACs; here the sum of the
    logarithms is a knapsack under any budget, solved to a proven gap around a plan, as by the allocator ``knapsack``.
    """

    def __call__(self, problem: Problem) -> Plan:
        """Return the plan.

        Raises: Infeasible when the budget cannot be met; PlanError without a budget.
        """
        problem.need_bounds("eigenvalue_product")
        starts = [uniform()(problem), global_()(problem)]
        losses = {site.name: lost(problem.scores[site.name], site) for site in problem.sites}
        least = {site.name: site.fewest for site in problem.sites}
        whole = {site.name: site.size for site in problem.sites}
        counts = [whole | {entry.site: len(entry.kept) for entry in plan} for plan in starts]
        settled = Around(problem, losses, least).settle(counts)
        problem.said.append(f"product of kept shares {np.exp(-settled.loss):.3g}")
        return problem.keep(settled.counts)


def lost(energies: Floats, site: Site | None = None) -> Floats:
    """Return -log of the share of energy that each count keeps, of the best or of those that come first in an order.

    Shapes: energies [size]; returns [size + 1] by count.

    >>> np.exp(-lost(np.array([1.0, 3.0]))).round(6).tolist()
    [0.0, 0.75, 1.0]
    """
    positive = np.maximum(energies, 0.0)
    total = float(positive.sum())
    if total == 0:
        return np.zeros(len(energies) + 1)
    found: Floats = -np.log(np.maximum(1.0 - losing(positive, site) / total, FAINT))
    return found
