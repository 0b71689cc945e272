"""Network to network: one policy takes blocks out, another narrows what is left."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from penjing.allocators.policy import Policy
from penjing.allocators.problem import Problem
from penjing.core.errors import PlanError
from penjing.core.plan import Plan
from penjing.core.registry import entries, register
from penjing.core.search import Search, Trial
from penjing.core.sites import Site
from penjing.core.units import Floats

MULTIPLIERS = (0.25, 0.5, 0.5, 0.5, 0.5, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Shares of its units that a site may keep; a half stands there five times, so that a policy begins with it."""

HARD = 15
"""After so many updates a plan that breaks a constraint is worth -1, whatever it loses and saves."""

Counts = Mapping[str, int]
"""How many units sites keep, by name; what is not named is whole."""


@register("allocator")
@dataclass(frozen=True)
class n2n:  # noqa: N801  (registered under its own name)
    """Let two policies learn by rewards what to remove and what to narrow, and take the plan of the greatest reward.

    First an LSTM that reads all residual blocks decides which stay, then one that goes from site to site gives each a
    multiplier, 0.25 to 1, within the network that is left; a problem of one kind has one stage. Each of ``updates``
    measures ``rollouts`` plans. A plan that saves the share C of the tightest bounded cost is rewarded with
    R_a C (2 - C); R_a is its accuracy as a share of the original's where the error is measured, and otherwise
    exp(-loss / mean loss of the first plans). So it pays to go further below the budget than it asks. A plan that
    breaks a bound, or whose R_a is below ``accuracy``, gets ε - 1 + ε R_a C (2 - C), and ε falls to 0 within 15
    updates; from then on plans that break a bound are no longer measured. What is returned keeps every bound: where no
    plan measured does, the best is scaled to.

    Raises: PlanError for an option that cannot be.
    Paper: Ashok, Rhinehart, Beainy, Kitani, N2N Learning: Network to Network Compression via Policy Gradient
    Reinforcement Learning, ICLR 2018, sections 3.2 to 3.4.
    Differs: any cost may be bounded, the paper's is parameters; which channels stay, the scores decide, the paper
    crops; in the first stage a bound counts as kept when narrowing can still keep it. Features are scaled, the second
    policy learns at the rate of the first, and of a policy what ``Policy`` says. No policy is carried over from another
    network.
    """

    updates: int = 100
    rollouts: int = 5
    lr: float = 0.003
    accuracy: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        for name in ("updates", "rollouts"):
            if getattr(self, name) < 1:
                raise PlanError(f"n2n: {name} must be 1 or more; got {getattr(self, name)}.")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise PlanError(f"n2n: lr must be a number above 0; got {self.lr}.")
        if not 0 <= self.accuracy <= 1:
            raise PlanError(
                f"n2n: accuracy is the share of the original's accuracy that must stay, 0 to 1; got {self.accuracy}."
            )

    @property
    def trials(self) -> int:
        """How many plans are asked about at most: two stages, the original before them, a scaled plan after them."""
        return 2 * self.updates * self.rollouts + 2

    def __call__(self, problem: Problem) -> Search:
        """Search; the plan returned has the greatest reward of those that keep every constraint.

        Raises: Infeasible when the budget cannot be met; PlanError without a budget.
        """
        problem.need_bounds("n2n")
        least = problem.keep({site.name: site.fewest for site in problem.sites})
        if not problem.fits(least):
            problem.refuse(least)
        (whole,) = yield [Plan()]
        judge = Judge(problem, self.accuracy, whole)
        blocks = [site for site in problem.sites if site.size == 1 and site.fewest == 0]
        wide = [site for site in problem.sites if site not in blocks]
        best = _Best(problem.fits(Plan()), True, 0.0, {})
        if blocks:
            can_fit = problem.fits(problem.keep({site.name: site.fewest for site in wide}))
            best = yield from self._stage(problem, judge, blocks, (0.0, 1.0), wide, replace(best, fits=can_fit))
        taken = problem.taken(best.counts)
        if wide := [site for site in wide if site.name not in taken]:
            start = replace(best, fits=problem.fits(problem.keep(best.counts)))
            best = yield from self._stage(problem, judge, wide, MULTIPLIERS, [], start)
        plan = problem.keep(best.counts)
        if not best.fits:
            plan = problem.near(plan)
            yield [plan]
            problem.said.append("n2n measured no plan within the budget; the best was scaled")
        elif not best.accurate:
            problem.said.append(f"n2n measured no plan within the budget of {self.accuracy:g} of the accuracy")
        return plan

    def _stage(
        self,
        problem: Problem,
        judge: Judge,
        sites: Sequence[Site],
        choices: Sequence[float],
        later: Sequence[Site],
        best: _Best,
    ) -> Generator[list[Plan], list[Trial], _Best]:
        """Let a policy choose the share of each of these sites, on top of what ``best`` removes, and return the best.

        ``later`` are the sites that a later stage narrows: what can be made to keep the bounds there keeps them here.
        """
        base, narrowest = dict(best.counts), {site.name: site.fewest for site in later}
        policy = Policy(
            features(problem, judge, sites), choices, ahead=bool(choices[0] == 0), lr=self.lr, seed=problem.seed,
            name=f"allocator/n2n/{'remove' if choices[0] == 0 else 'shrink'}",
        )  # fmt: skip
        for update in range(self.updates):
            drawn = policy.draw(self.rollouts)
            tried = [base | widths(sites, [choices[i] for i in row]) for row in drawn.tolist()]
            plans = [problem.keep(counts) for counts in tried]
            fit = [problem.fits(problem.keep({**counts, **narrowest})) for counts in tried]
            soft = softness(update)
            asked = [plan for plan, fits in zip(plans, fit, strict=True) if fits or soft > 0]
            answers = (yield asked) if asked else []
            trials = {trial.plan.key: trial for trial in answers}
            judge.see(answers)
            rewards = []
            for counts, plan, fits in zip(tried, plans, fit, strict=True):
                if plan.key not in trials:
                    rewards.append(-1.0)
                    continue
                found = judge(trials[plan.key])
                accurate = judge.accurate(trials[plan.key])
                rewards.append(found if fits and accurate else punished(found, soft))
                best = max(best, _Best(fits, accurate, found, counts), key=lambda one: one.rank)
            policy.learn(drawn, rewards)
        return best


@dataclass(frozen=True)
class _Best:
    """A plan that was measured: whether it keeps the bounds, whether it is accurate enough, and its reward."""

    fits: bool
    accurate: bool
    reward: float
    counts: Counts

    @property
    def rank(self) -> tuple[bool, bool, float]:
        return self.fits, self.accurate, self.reward


class Judge:
    """Rewards a trial by what it saves and what it loses, beside ``whole``, the trial of the original.

    A value that is no finite number is worth -1.

    Raises: PlanError where an accuracy is asked for and no error is measured.
    """

    def __init__(self, problem: Problem, accuracy: float, whole: Trial) -> None:
        self.value, self.least, self.whole = problem.minimise, accuracy, whole
        self.cost = max(problem.bounds, key=lambda bound: whole[bound.cost] / bound.limit).cost
        measured = None if self.value == "lost" else entries("cost").get(self.value)
        self.percent = getattr(measured, "unit", "") == "%"
        if accuracy and not self.percent:
            raise PlanError(
                f"n2n: accuracy bounds a share of the original's accuracy, and trials are judged by {self.value}; "
                "leave it out, or measure the error."
            )
        self.scale = 0.0

    def __call__(self, trial: Trial) -> float:
        """Return R_a C (2 - C)."""
        kept = self._kept(trial)
        return kept * economy(1 - trial[self.cost] / self.whole[self.cost]) if math.isfinite(kept) else -1.0

    def accurate(self, trial: Trial) -> bool:
        """Tell whether enough of the accuracy is left."""
        return self._kept(trial) >= self.least

    def _kept(self, trial: Trial) -> float:
        """Return R_a; not a number where nothing was measured."""
        value, whole = trial[self.value], self.whole[self.value]
        if not math.isfinite(value - whole):
            return math.nan
        if self.percent:
            return (100 - value) / max(100 - whole, 1.0)
        return math.exp(-max(value - whole, 0.0) / (self.scale or 1.0))

    def see(self, trials: Sequence[Trial]) -> None:
        """Take the mean loss of these, the first ones that lose anything, as the unit of losses."""
        losses = [trial[self.value] - self.whole[self.value] for trial in trials]
        if not self.scale and (lost := [loss for loss in losses if math.isfinite(loss) and loss > 0]):
            self.scale = float(np.mean(lost))


def economy(saved: float) -> float:
    """Return what saving a share of the cost is worth: much at first, little at the end.

    Paper: N2N, eq. 5: C (2 - C).

    >>> [round(economy(c), 4) for c in (0.0, 0.5, 0.9, 1.0)]
    [0.0, 0.75, 0.99, 1.0]
    """
    return saved * (2 - saved)


def softness(update: int) -> float:
    """Return ε, how much of the reward a plan that breaks a constraint still gets.

    >>> softness(0), round(softness(5), 4), softness(15), softness(40)
    (1.0, 0.1975, 0.0, 0.0)
    """
    return float(max(1 - update / HARD, 0.0) ** 4)


def punished(reward: float, soft: float) -> float:
    """Return the reward of a plan that breaks a constraint.

    >>> punished(0.7, 1.0), punished(0.7, 0.0)
    (0.7, -1.0)
    """
    return soft - 1 + soft * reward


def widths(sites: Sequence[Site], shares: Sequence[float]) -> dict[str, int]:
    """Return the counts nearest to these shares that the sites allow."""
    return {
        site.name: site.allowed(share * site.size + site.step / 2) for site, share in zip(sites, shares, strict=True)
    }


def features(problem: Problem, judge: Judge, sites: Sequence[Site]) -> Floats:
    """Describe sites for a policy: position, kind, size, what each saves alone at its fewest, and its score.

    Shapes: [sites, 5], in [0, 1].
    """
    kinds = sorted({site.rewrite or site.kind for site in sites})
    whole = judge.whole[judge.cost]
    saved = [whole - problem.price(problem.keep({site.name: site.fewest}))[judge.cost] for site in sites]
    columns = [
        [float(i) for i in range(len(sites))],
        [float(kinds.index(site.rewrite or site.kind)) for site in sites],
        [math.log(site.size + 1) for site in sites],
        saved,
        [float(problem.scores[site.name].mean()) for site in sites],
    ]
    table = np.array(columns, dtype=np.float64).T
    spread = np.ptp(table, axis=0)
    scaled: Floats = (table - table.min(0)) / np.where(spread > 0, spread, 1.0)
    return scaled
