"""Choose one option a site so that the sum of losses is least and every budget holds: a knapsack, solved and proved."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penjing.core.muted import stdout_muted
from penjing.core.types import Floats, Ints

SLACK = 1e-12
"""Sums of costs may exceed a limit by this share of it a site: added up in another order they come out otherwise."""

NODES = 20_000
"""Where HiGHS stops branching: unlike the clock, this stops every run at the same choice."""

ROUNDINGS = 4096
"""Ways to round a relaxation that are tried at most."""

TRIES = 4
"""How often HiGHS is asked again after an answer that exceeds a limit within its own tolerance."""


@dataclass(frozen=True)
class Solution:
    """One option a site: ``choice[i]`` counts in the options given for site i.

    ``loss`` is what it loses, ``bound`` what every choice within the limits loses at least, ``gap`` their difference as
    a share of the loss; ``proven`` says that the gap is as small as asked.
    """

    choice: list[int]
    loss: float
    bound: float
    gap: float
    proven: bool


def solve(
    losses: Sequence[Floats], costs: Sequence[Floats], limits: Floats, *, gap: float = 1e-3, seconds: float = 10.0
) -> Solution | None:
    """Choose one option a site: the least sum of losses whose sums of costs keep every limit.

    The relaxation to fractions of options gives the bound, and its rounding a first choice. An option that the bound
    shows to lead to nothing better is left out, and HiGHS branches over what is left until the gap is proved, or gives
    up after ``NODES`` nodes or so many ``seconds``; then the best choice known is returned. Only a clock that ran out
    can make two runs differ; with no seconds at all, the rounding is the answer. Infinite losses and costs forbid an
    option; an infinite limit bounds nothing. Returns None where no choice keeps the limits, or none was found in time.

    Shapes: losses[i] [options of site i], costs[i] [options of site i, budgets], limits [budgets].
    Paper: Sinha and Zoltners, The multiple-choice knapsack problem, Operations Research 27, 1979: dominated options,
    the relaxation, and options left out by their reduced cost.
    Differs: several budgets; the relaxation is solved and the branching done by HiGHS.
    """
    problem = _Problem.of(losses, costs, np.asarray(limits, dtype=np.float64))
    relaxed = None if problem is None else problem.relax()
    if problem is None or relaxed is None:
        return None
    bound, penalties, shares = relaxed
    best = problem.round(penalties, shares)
    above = math.inf if best is None else problem.loss(best)
    if _gap(above, bound) > gap and seconds > 0:
        found, proved = problem.branch(penalties <= above - bound, bound, gap, seconds)
        if found is not None and problem.loss(found) < above:
            best, above = found, problem.loss(found)
        bound = max(bound, min(proved, above))  # what was left out loses as much as the first choice at least
    if best is None:
        return None
    left = _gap(above, bound)
    return Solution([int(i) for i in problem.index[best]], above, min(bound, above), left, left <= gap)


def _gap(loss: float, bound: float) -> float:
    """Return how far a loss may lie above the least possible, as a share of it."""
    if not math.isfinite(loss):
        return math.inf
    return 0.0 if loss <= bound else (loss - bound) / max(abs(loss), 1e-300)


@dataclass(frozen=True, eq=False)
class _Problem:
    """The options worth looking at, those of one site after those of another; a choice is one position a site.

    ``cost`` is what an option needs above the least of its site, as a share of what the limits leave for that, so that
    every limit is 1, or ``most`` with what floats may add up to.

    Shapes: site, loss_of, index [options]; cost [options, budgets]; starts [sites]; most [budgets].
    """

    site: Ints
    starts: Ints
    loss_of: Floats
    cost: Floats
    index: Ints
    most: Floats

    @classmethod
    def of(cls, losses: Sequence[Floats], costs: Sequence[Floats], limits: Floats) -> _Problem | None:
        """Drop what is forbidden, dominated or too dear, and scale the rest; None where a site has nothing left."""
        bounded = limits < math.inf
        limits = limits[bounded]
        lost = [np.asarray(loss, dtype=np.float64) for loss in losses]
        spent = [
            np.asarray(cost, dtype=np.float64).reshape(len(loss), len(bounded))[:, bounded]
            for loss, cost in zip(lost, costs, strict=True)
        ]
        mine = [_worthwhile(loss, cost) for loss, cost in zip(lost, spent, strict=True)]
        while all(len(options) for options in mine):
            least = np.array([cost[options].min(0) for cost, options in zip(spent, mine, strict=True)])
            least = least.reshape(len(mine), len(limits))
            room = limits - least.sum(0)
            tight = SLACK * len(mine) * np.maximum(np.abs(limits), np.abs(least).sum(0))
            fitting = [
                options[(cost[options] - low <= room + tight).all(1)]
                for cost, options, low in zip(spent, mine, least, strict=True)
            ]
            if sum(map(len, fitting)) == sum(map(len, mine)):
                scale = np.where(room > tight, room, math.inf)  # nothing is left that needs any of what is not there
                above = [cost[options] - low for cost, options, low in zip(spent, mine, least, strict=True)]
                sizes = [len(options) for options in mine]
                return cls(
                    np.repeat(np.arange(len(mine)), sizes),
                    np.cumsum([0, *sizes])[:-1],
                    np.concatenate([loss[options] for loss, options in zip(lost, mine, strict=True)]),
                    np.concatenate(above) / scale,
                    np.concatenate(mine),
                    1 + tight / scale,
                )
            mine = fitting
        return None

    def loss(self, choice: Ints) -> float:
        """Return what a choice loses."""
        return float(self.loss_of[choice].sum())

    def fits(self, choice: Ints) -> bool:
        """Tell whether a choice keeps every limit."""
        return bool((self.cost[choice].sum(0) <= self.most).all())

    @property
    def _membership(self) -> Any:
        """One row a site with a one for each of its options."""
        from scipy.sparse import csr_array

        options = np.arange(len(self.site))
        return csr_array((np.ones(len(options)), (self.site, options)), shape=(len(self.starts), len(options)))

    def relax(self) -> tuple[float, Floats, Floats] | None:
        """Solve the relaxation; None where even fractions of options do not keep the limits.

        Returns the bound it proves, what taking an option adds to that bound at least, and the share of each option.
        The bound is added up here from the prices of the budgets, which makes it one whatever their last digits are.
        """
        from scipy.optimize import linprog

        budgets = self.cost.shape[1]
        found = linprog(
            self.loss_of, A_ub=self.cost.T if budgets else None, b_ub=self.most if budgets else None,
            A_eq=self._membership, b_eq=np.ones(len(self.starts)), bounds=(0, None), method="highs-ds",
        )  # fmt: skip
        if found.x is None:
            return None
        prices = np.maximum(-found.ineqlin.marginals, 0.0) if budgets else np.zeros(0)
        priced = self.loss_of + self.cost @ prices
        least = np.minimum.reduceat(priced, self.starts)
        return float(least.sum() - self.most @ prices), priced - least[self.site], np.asarray(found.x)

    def round(self, penalties: Floats, shares: Floats) -> Ints | None:
        """Return a choice near the relaxation's that keeps the limits, or None where none is found."""
        support = [np.flatnonzero((self.site == i) & (shares > 1e-9)) for i in range(len(self.starts))]
        ways = (np.array(way) for way in islice(product(*support), ROUNDINGS))
        fitting = [way for way in ways if self.fits(way)]
        choice = (
            min(fitting, key=self.loss) if fitting else self._repaired(np.array([s[0] for s in support]), penalties)
        )
        return None if choice is None else self._improved(choice)

    def _repaired(self, choice: Ints, penalties: Floats) -> Ints | None:
        """Change one site at a time, for what that costs the bound, until the limits are kept."""
        while (over := float(np.maximum(self._spent(choice) - self.most, 0).sum())) > 0:
            after = np.maximum(self._changed(choice) - self.most, 0).sum(1)
            saved = over - after
            helps = saved > 1e-12 * over
            if not helps.any():
                return None
            price = np.where(helps, (penalties - penalties[choice][self.site]) / np.where(helps, saved, 1.0), math.inf)
            choice = self._with(choice, int(price.argmin()))
        return choice

    def _improved(self, choice: Ints) -> Ints:
        """Change one site at a time while that loses less and keeps the limits."""
        while True:
            gained = self.loss_of[choice][self.site] - self.loss_of
            gained[~(self._changed(choice) <= self.most).all(1)] = 0.0
            if (best := int(gained.argmax())) in choice or gained[best] <= 0:
                return choice
            choice = self._with(choice, best)

    def _spent(self, choice: Ints) -> Floats:
        spent: Floats = self.cost[choice].sum(0)
        return spent

    def _changed(self, choice: Ints) -> Floats:
        """Return what is spent when a site takes another option, for each option."""
        changed: Floats = self._spent(choice) - self.cost[choice][self.site] + self.cost
        return changed

    def _with(self, choice: Ints, option: int) -> Ints:
        changed = choice.copy()
        changed[self.site[option]] = option
        return changed

    def branch(self, worth: NDArray[np.bool_], bound: float, gap: float, seconds: float) -> tuple[Ints | None, float]:
        """Let HiGHS choose among the options that are ``worth`` it.

        Returns its choice where it has one that keeps the limits, and what every choice among these loses at least.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp

        end = time.monotonic() + seconds
        least = np.minimum.reduceat(self.loss_of, self.starts)
        shift, loss = float(least.sum()), self.loss_of - least[self.site]
        scale = max(bound - shift, float(loss.max()) * 1e-9, 1e-300)
        # HiGHS takes its gap from the objective without the shift.
        wanted = min(gap * abs(bound) / scale, 1.0)
        proved, limits = bound, np.ones(self.cost.shape[1])
        for _ in range(TRIES):
            constraints = [LinearConstraint(self._membership, 1, 1)]
            if len(limits):
                constraints.append(LinearConstraint(self.cost.T, -math.inf, limits))
            with stdout_muted():
                found = milp(
                    loss / scale, integrality=np.ones(len(loss), dtype=np.int64), bounds=Bounds(0, worth.astype(float)),
                    constraints=constraints,
                    options={
                        "mip_rel_gap": wanted, "node_limit": NODES, "time_limit": max(end - time.monotonic(), 0.01)
                    },
                )  # fmt: skip
            if (limits == 1).all():
                if found.status == 2:
                    return None, math.inf
                if found.mip_dual_bound is not None:
                    proved = float(found.mip_dual_bound) * scale + shift
            if found.x is None:
                return None, proved
            choice = np.array([s + int(part.argmax()) for s, part in zip(
                self.starts, np.split(np.asarray(found.x), self.starts[1:]), strict=True)])  # fmt: skip
            if self.fits(choice):
                return choice, proved
            limits = limits - 2 * np.maximum(self._spent(choice) - 1, 0)
        return None, proved


def _worthwhile(loss: Floats, cost: Floats) -> Ints:
    """Return the options that are allowed and that no other beats or equals in the loss and in every cost."""
    allowed = np.flatnonzero(np.isfinite(loss) & np.isfinite(cost).all(1))
    facts = np.column_stack([loss, cost])[allowed]
    no_worse = (facts[:, None] <= facts).all(2)
    better = no_worse & (~no_worse.T | (np.arange(len(facts))[:, None] < np.arange(len(facts))))
    kept: Ints = allowed[~better.any(0)]
    return kept
