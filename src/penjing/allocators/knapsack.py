"""Choose the counts of all sites together, by a knapsack that is solved to a proven gap."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from penjing.allocators.around import Around, Settled
from penjing.allocators.greedy import greedy
from penjing.allocators.problem import Problem
from penjing.allocators.sensitivity import Foretold, Losses, by_scores, curve, foretell, matched, points
from penjing.allocators.simple import global_, uniform
from penjing.core.errors import PlanError
from penjing.core.plan import Plan
from penjing.core.registry import register
from penjing.core.search import Search, Trial

KINDS = ("auto", "scores", "measured")
"""Where losses may come from."""

MOVES = 20_000
"""Where sites have more counts than this together, greedy, which goes through them one by one, is no start."""

CHECKS = 8
"""Whole plans that losses are to foretell."""

POINTS = 4
"""Counts that a site is measured at, at most."""

ASIDE = CHECKS + 6
"""Trials that are not of single sites: the checks, the whole network, greedy's two, and the plans at the end."""

SPREAD = 0.3
"""How far apart checks lie: the deviation of the logarithms of what their counts are multiplied by."""


@register("allocator")
@dataclass(frozen=True)
class knapsack:  # noqa: N801  (registered under its own name)
    """Choose all counts together so that the least is lost, each choice solved to a proven gap.

    Each count of a site is an option with a loss and with what it costs of every bound; one option a site is chosen by
    a multiple-choice knapsack. A layer costs by two sites and in steps, so that the costs are those around a plan: the
    knapsack is solved and priced anew until nothing is won, once from the plan of greedy, which it never falls behind
    in what its losses say, and once from those of uniform and global. ``gap`` is how far the answer of each knapsack
    may lie above the least possible, as a share; ``seconds`` ends one that takes long. ``floor`` is the share that
    every site keeps, as long as the budget allows.

    ``loss`` says where losses come from: ``scores``; ``measured``, which has a few counts of each site measured with
    all others whole; or ``auto``, which measures, brings scores into the unit of what was measured, rewrite by rewrite,
    has a few whole plans foretold by scores, by what was measured and by the mean of both, and takes the best of all
    plans, as measured. These plans lie around the one that is sought, and tell anew how much channels, ranks and bits
    count beside each other. ``trials`` is how many plans are measured at most; where nothing is measured, or these are
    too few for all sites, scores decide. Losses are added up, so by default the divergence is measured, which tells
    small ones apart where the error of a few hundred pictures does not change at all.

    Paper: Shen et al., HALP, NeurIPS 2022, section 3: saliency and latency in one knapsack.
    Differs: all counts of a site are options of one choice, any number of bounds, an exact solver, measured losses.
    """

    measures: ClassVar[Mapping[str, Any]] = {"divergence": {"images": 2048, "recalibrate": 2}}

    loss: str = "auto"
    trials: int = 256
    floor: float = 0.1
    gap: float = 1e-3
    seconds: float = 10.0

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        if self.loss not in KINDS:
            raise PlanError(f"knapsack: loss is one of {', '.join(KINDS)}; got {self.loss!r}.")
        if not 0 <= self.floor < 1:
            raise PlanError(f"knapsack: floor is the share that a site keeps, from 0 to below 1; got {self.floor}.")
        for name in ("trials", "gap", "seconds"):
            if not 0 <= getattr(self, name) < math.inf:
                raise PlanError(f"knapsack: {name} must be 0 or more; got {getattr(self, name)}.")
        if self.loss == "scores":
            object.__setattr__(self, "trials", 0)

    def __call__(self, problem: Problem) -> Search:
        """Search; where scores decide, it asks for measurements only where greedy, one of its starts, does.

        Raises: Infeasible when the budget cannot be met; PlanError without a budget.
        """
        problem.need_bounds("knapsack")
        starts = [[uniform()(problem), global_()(problem)]]
        if sum(site.size / site.step for site in problem.sites) <= MOVES:
            starts.append([(yield from greedy(self.floor)(problem))])
        each = 0 if problem.minimise == "lost" else min(POINTS, (self.trials - ASIDE) // len(problem.sites))
        scores = by_scores(problem)
        settled = self._settled(problem, scores, starts)
        plan = problem.keep(settled.counts)
        if each > 0:
            return (yield from self._measured(problem, scores, plan, starts, each))
        problem.said.append(f"{_solved(settled)}, losses by scores")
        return plan

    def _measured(
        self, problem: Problem, scores: Losses, first: Plan, starts: Sequence[Sequence[Plan]], each: int
    ) -> Search:
        """Return the best plan by losses that are measured; ``first`` is the one by scores."""
        least = self._least(problem)
        alone = [(site, n) for site in problem.sites for n in points(site, least[site.name], each)]
        whole, *tried = yield [Plan(), *(problem.keep({site.name: n}) for site, n in alone)]
        above = [trial[problem.minimise] - whole[problem.minimise] for trial in tried]
        curves = {}
        for site in problem.sites:
            mine = [i for i, (other, _) in enumerate(alone) if other is site]
            curves[site.name] = curve(scores[site.name], [alone[i][1] for i in mine], [above[i] for i in mine])
        losses: dict[str, Losses] = {"measured": curves}
        if self.loss == "auto":
            losses["scores"] = matched(problem, scores, alone, above)
        checks = yield self._checks(problem, losses, first, starts)
        told = foretell(problem, losses, checks, whole[problem.minimise])
        settled = [self._settled(problem, one.losses, starts) for one in told]
        ends = yield [problem.keep(one.counts) for one in settled]
        problem.said.append(f"{_solved(settled[0])}, losses {_told(told)}")
        best: Trial = min([*ends, *(checks if self.loss == "auto" else ())], key=lambda trial: trial[problem.minimise])
        problem.facts["losses"] = [
            {"by": one.name, "rank": one.rank, "explained": one.explained, "reached": end[problem.minimise],
             "taken": end.plan.key == best.plan.key}
            for one, end in zip(told, ends, strict=True)
        ]  # fmt: skip
        problem.facts["foretold"] = CHECKS
        return best.plan

    def _checks(
        self, problem: Problem, losses: Mapping[str, Losses], first: Plan, starts: Sequence[Sequence[Plan]]
    ) -> list[Plan]:
        """Return whole plans for losses to foretell: those that they lead to, and some around the one by measuring.

        Far from there, where networks are ruined, all losses are wrong, and which is the least wrong says nothing.
        """
        solved = [problem.keep(self._settled(problem, mine, starts).counts) for mine in losses.values()]
        rng, some = problem.rng("allocator/knapsack"), CHECKS - 1 - len(solved)
        apart = [np.exp(SPREAD * rng.standard_normal(len(problem.sites))) for _ in range(some)]
        return [first, *solved, *(problem.near(solved[0], factors) for factors in apart)]

    def _settled(self, problem: Problem, losses: Losses, starts: Sequence[Sequence[Plan]]) -> Settled:
        """Return the best of what each group of starts leads to."""
        around = Around(problem, losses, self._least(problem), self.gap, self.seconds)
        found = [around.settle([_counts(problem, plan) for plan in plans]) for plans in starts]
        return min(found, key=lambda one: one.loss)

    def _least(self, problem: Problem) -> dict[str, int]:
        """Return the fewest units of each site that are options."""
        least = {site.name: max(site.fewest, site.allowed(self.floor * site.size)) for site in problem.sites}
        return least if problem.fits(problem.keep(least)) else {site.name: site.fewest for site in problem.sites}


def _counts(problem: Problem, plan: Plan) -> dict[str, int]:
    return {site.name: site.size for site in problem.sites} | {entry.site: len(entry.kept) for entry in plan}


def _solved(settled: Settled) -> str:
    if not math.isfinite(settled.gap):
        return "knapsack: one of its starts stands"
    proved = "" if settled.proven else ", which is not as small as asked"
    return f"knapsack solved to a gap of {100 * settled.gap:.2g} %{proved}"


def _told(told: Sequence[Foretold]) -> str:
    """Say what losses come from and how well they, and the others, foretold whole plans."""
    ranks = ", ".join(f"{one.name} {one.rank:.2f}" for one in told)
    return f"by {told[0].name} (rank correlation over {CHECKS} plans: {ranks})"
