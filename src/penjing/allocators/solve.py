"""Choose one option a site so that the sum of losses is least and every budget holds: a knapsack, solved and proved."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, product
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from penjing.allocators.cover import Cover, Within, emptied
from penjing.core.muted import stdout_muted
from penjing.core.units import Floats, Ints

SLACK = 1e-12
"""Sums of costs may exceed a limit by this share of it a site: added up in another order they come out otherwise."""

NODES = 20_000
"""Where HiGHS stops branching: unlike the clock, this stops every run at the same choice."""

ROUNDINGS = 4096
"""Ways to round a relaxation that are tried at most."""

TRIES = 4
"""How often HiGHS is asked again after an answer that exceeds a limit within its own tolerance."""

TAKEN = -1
"""What is chosen at a site that an option of another one takes away."""

ALONE: Within = MappingProxyType({})
"""No site lies within another."""


@dataclass(frozen=True)
class Solution:
    """One option a site: ``choice[i]`` counts in the options given for site i, ``TAKEN`` where the site is taken away.

    ``loss`` is what it loses, ``bound`` what every choice within the limits loses at least, ``gap`` their difference as
    a share of the loss; ``proven`` says that the gap is as small as asked.
    """

    choice: list[int]
    loss: float
    bound: float
    gap: float
    proven: bool


def solve(
    losses: Sequence[Floats],
    costs: Sequence[Floats],
    limits: Floats,
    *,
    within: Within = ALONE,
    gap: float = 1e-3,
    seconds: float = 10.0,
) -> Solution | None:
    """Choose one option a site: the least sum of losses whose sums of costs keep every limit.

    A site may lie ``within`` another, of which one option takes it away: there nothing is chosen, lost or spent. In
    the linear program the options of each site and those that take it away add up to one (``cover``).

    The relaxation to fractions of options gives the bound, and its rounding a first choice. An option that the bound
    shows to lead to nothing better is left out, and HiGHS branches over what is left until the gap is proved, or gives
    up after ``NODES`` nodes or so many ``seconds``; then the best choice known is returned. Only a clock that ran out
    can make two runs differ; with no seconds at all, the rounding is the answer. Infinite losses and costs forbid an
    option; an infinite limit bounds nothing. Returns None where no choice keeps the limits, or none was found in time.

    Shapes: losses[i] [options of site i], costs[i] [options of site i, budgets], limits [budgets].
    Paper: Sinha and Zoltners, The multiple-choice knapsack problem, Operations Research 27, 1979: dominated options,
    the relaxation, and options left out by their reduced cost.
    Differs: several budgets; sites within sites; the relaxation is solved and the branching done by HiGHS.
    """
    problem = _Problem.of(losses, costs, np.asarray(limits, dtype=np.float64), within)
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
    left, choice = _gap(above, bound), [TAKEN] * len(losses)
    for site, option in zip(problem.sites, best, strict=True):
        choice[site] = TAKEN if option < 0 else int(problem.cover.index[option])
    return Solution(choice, above, min(bound, above), left, left <= gap)


def _gap(loss: float, bound: float) -> float:
    """Return how far a loss may lie above the least possible, as a share of it."""
    if not math.isfinite(loss):
        return math.inf
    return 0.0 if loss <= bound else (loss - bound) / max(abs(loss), 1e-300)


@dataclass(frozen=True, eq=False)
class _Problem:
    """The options worth looking at; a choice is one position a site, as ``cover`` has it.

    ``cost`` is what an option needs above the least of its site, as a share of what the limits leave for that, so that
    every limit is 1, or ``most`` with what floats may add up to. ``sites`` are those of which something is left.

    Shapes: sites [sites]; loss_of [options]; cost [options, budgets]; most [budgets].
    """

    sites: Ints
    cover: Cover
    loss_of: Floats
    cost: Floats
    most: Floats

    @classmethod
    def of(cls, losses: Sequence[Floats], costs: Sequence[Floats], limits: Floats, within: Within) -> _Problem | None:
        """Drop what is forbidden, dominated or too dear, and scale the rest; None where a site has nothing left."""
        bounded = limits < math.inf
        limits = limits[bounded]
        lost = [np.asarray(loss, dtype=np.float64) for loss in losses]
        spent = [
            np.asarray(cost, dtype=np.float64).reshape(len(loss), len(bounded))[:, bounded]
            for loss, cost in zip(lost, costs, strict=True)
        ]
        takers = set(within.values())
        options = [
            _worthwhile(loss, cost, np.array([j if (i, j) in takers else -1 for j in range(len(loss))]))
            for i, (loss, cost) in enumerate(zip(lost, spent, strict=True))
        ]
        while (left := emptied(options, within)) is not None:
            sites, cover = Cover.of(left, within)
            cost = np.concatenate([spent[i][left[i]] for i in sites])
            least = cover.least(cost)
            above, room = cover.above(cost, least), limits - least.sum(0)
            tight = SLACK * len(sites) * np.maximum(np.abs(limits), np.abs(least).sum(0))
            fits = (above <= room + tight).all(1)
            if fits.all():
                scale = np.where(room > tight, room, math.inf)  # nothing is left that needs any of what is not there
                lost_by = np.concatenate([lost[i][left[i]] for i in sites])
                return cls(sites, cover, lost_by, above / scale, 1 + tight / scale)
            for site, mine in zip(sites, np.split(fits, cover.starts[1:]), strict=True):
                left[site] = left[site][mine]
            options = left
        return None

    def loss(self, choice: Ints) -> float:
        """Return what a choice loses."""
        return float(self.loss_of[choice[choice >= 0]].sum())

    def fits(self, choice: Ints) -> bool:
        """Tell whether a choice keeps every limit."""
        return bool((self._spent(choice) <= self.most).all())

    def relax(self) -> tuple[float, Floats, Floats] | None:
        """Solve the relaxation; None where even fractions of options do not keep the limits.

        Returns the bound it proves, what taking an option adds to that bound at least, and the share of each option.
        The bound is added up here from the prices of the budgets, which makes it one whatever their last digits are.
        """
        from scipy.optimize import linprog

        budgets = self.cost.shape[1]
        found = linprog(
            self.loss_of, A_ub=self.cost.T if budgets else None, b_ub=self.most if budgets else None,
            A_eq=self.cover.members, b_eq=np.ones(len(self.sites)), bounds=(0, None), method="highs-ds",
        )  # fmt: skip
        if found.x is None:
            return None
        prices = np.maximum(-found.ineqlin.marginals, 0.0) if budgets else np.zeros(0)
        priced = self.loss_of + self.cost @ prices
        least = self.cover.least(priced)
        return float(least.sum() - self.most @ prices), self.cover.above(priced, least), np.asarray(found.x)

    def round(self, penalties: Floats, shares: Floats) -> Ints | None:
        """Return a choice near the relaxation's that keeps the limits, or None where none is found."""
        starts = self.cover.starts[1:]
        usual = self.cover.starts + np.array([part.argmin() for part in np.split(penalties, starts)])
        found = [np.flatnonzero((self.cover.site == i) & (shares > 1e-9)) for i in range(len(self.sites))]
        support = [mine if len(mine) else usual[[i]] for i, mine in enumerate(found)]
        ways = [self.cover.complete(np.array(way), usual) for way in islice(product(*support), ROUNDINGS)]
        fitting = [way for way in ways if self.fits(way)]
        choice = min(fitting, key=self.loss) if fitting else self._repaired(ways[0], penalties, usual)
        return None if choice is None else self._improved(choice, usual)

    def _repaired(self, choice: Ints, penalties: Floats, usual: Ints) -> Ints | None:
        """Change one site at a time, for what that costs the bound, until the limits are kept."""
        while (over := float(np.maximum(self._spent(choice) - self.most, 0).sum())) > 0:
            after = np.maximum(self._spent(choice) + self.cover.changed(choice, self.cost, usual) - self.most, 0).sum(1)
            saved = over - after
            helps = saved > 1e-12 * over
            if not helps.any():
                return None
            price = np.full(len(penalties), math.inf)
            price[helps] = self.cover.changed(choice, penalties, usual)[helps] / saved[helps]
            choice = self.cover.turned(choice, int(price.argmin()), usual)
        return choice

    def _improved(self, choice: Ints, usual: Ints) -> Ints:
        """Change one site at a time while that loses less and keeps the limits."""
        while True:
            gained = -self.cover.changed(choice, self.loss_of, usual)
            spent = self._spent(choice) + self.cover.changed(choice, self.cost, usual)
            gained[~(spent <= self.most).all(1)] = 0.0
            best = int(gained.argmax())
            if best in choice or gained[best] <= SLACK * np.abs(self.loss_of[choice[choice >= 0]]).sum():
                return choice
            choice = self.cover.turned(choice, best, usual)

    def _spent(self, choice: Ints) -> Floats:
        spent: Floats = self.cost[choice[choice >= 0]].sum(0)
        return spent

    def branch(self, worth: NDArray[np.bool_], bound: float, gap: float, seconds: float) -> tuple[Ints | None, float]:
        """Let HiGHS choose among the options that are ``worth`` it.

        Returns its choice where it has one that keeps the limits, and what every choice among these loses at least.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp

        end = time.monotonic() + seconds
        least = self.cover.least(self.loss_of)
        shift, loss = float(least.sum()), self.cover.above(self.loss_of, least)
        scale = max(bound - shift, float(loss.max()) * 1e-9, 1e-300)
        # HiGHS takes its gap from the objective without the shift.
        wanted = min(gap * abs(bound) / scale, 1.0)
        proved, limits = bound, np.ones(self.cost.shape[1])
        for _ in range(TRIES):
            constraints = [LinearConstraint(self.cover.members, 1, 1)]
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
            parts = np.split(np.asarray(found.x), self.cover.starts[1:])
            taken = [float(part.sum()) < 0.5 for part in parts]
            chosen = self.cover.starts + np.array([int(part.argmax()) for part in parts])
            choice = np.where(taken, TAKEN, chosen)
            if self.fits(choice):
                return choice, proved
            limits = limits - 2 * np.maximum(self._spent(choice) - 1, 0)
        return None, proved


def _worthwhile(loss: Floats, cost: Floats, takes: Ints) -> Ints:
    """Return the options that are allowed and that no other beats or equals in the loss and in every cost.

    An option that takes other sites away compares with none; ``takes`` tells such apart, and is -1 for all others.
    """
    allowed = np.flatnonzero(np.isfinite(loss) & np.isfinite(cost).all(1))
    facts, takes = np.column_stack([loss, cost])[allowed], takes[allowed]
    no_worse = (facts[:, None] <= facts).all(2) & (takes[:, None] == takes)
    better = no_worse & (~no_worse.T | (np.arange(len(facts))[:, None] < np.arange(len(facts))))
    kept: Ints = allowed[~better.any(0)]
    return kept
