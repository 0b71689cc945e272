"""An artificial bee colony over channel counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from penjing.allocators.problem import Problem
from penjing.core.errors import PlanError
from penjing.core.plan import Plan
from penjing.core.registry import register
from penjing.core.search import Search, Trial
from penjing.core.units import Ints

TENTHS = 10
"""A code counts tenths of a site's units."""


@dataclass
class _Source:
    """A code that bees feed on; ``trial`` is None until it is measured, ``failures`` count moves that won nothing."""

    code: Ints
    trial: Trial | None = None
    failures: int = 0


@register("allocator")
@dataclass(frozen=True)
class abcpruner:  # noqa: N801  (registered under its own name)
    """Let a colony of bees improve codes, the tenths of its units that each site keeps, and take the best measured.

    Each of ``sources`` codes is moved once a cycle, and ``sources`` onlookers move good codes again: in ``changed``
    places by a random share of what sets it apart from another code. A move that is better stays; of the codes that
    ``limit`` moves in a row have not bettered, the most worn is drawn anew each cycle. ``most`` caps the share that a
    site keeps, the alpha of the paper. Which units stay, the scores decide; the paper draws them (criterion
    ``random``) or takes the largest (``l1``), and judges after two epochs of training (``measure: tuned_error``).

    Paper: Lin et al., Channel Pruning via Automatic Structure Search, IJCAI 2020: employed bees, onlookers, scouts.
    Differs: a code that exceeds the budget means the network of its proportions that just keeps it, where the paper
    knows no budget and caps alone; codes within the budget are taken as they are. Moves are rounded, not truncated,
    and may fall on the last site. Onlookers choose by how far a code is above the worst, whatever is measured.
    Bees of one phase fly together, so that workers measure them at once, and what they find is compared one after
    the other. Finalists are not measured again, since a trial of the same plan gives the same number.
    """

    sources: int = 10
    limit: int = 5
    changed: int = 2
    cycles: int = 10
    most: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        for name, least in (("sources", 2), ("limit", 1), ("changed", 1), ("cycles", 1)):
            if getattr(self, name) < least:
                raise PlanError(f"abcpruner: {name} must be {least} or more; got {getattr(self, name)}.")
        if not 1 / TENTHS <= self.most <= 1:
            raise PlanError(f"abcpruner: most is the share that a site keeps at most, 0.1 to 1; got {self.most}.")

    @property
    def trials(self) -> int:
        """How many plans are asked about at most: all sources, two moves of each a cycle, a new source between two."""
        return self.sources + 2 * self.sources * self.cycles + self.cycles - 1

    def __call__(self, problem: Problem) -> Search:
        """Search; the plan returned has the least of what is minimised.

        Raises: Infeasible when the budget cannot be met; PlanError with neither a budget nor a cap.
        """
        if self.most == 1:
            problem.need_bounds("abcpruner")
        rng = problem.rng("allocator/abcpruner")
        sources = [_Source(self._drawn(problem, rng)) for _ in range(self.sources)]
        tried: list[Trial] = []
        for _ in range(self.cycles):
            fresh = [source for source in sources if source.trial is None]
            moves = self._moves(sources, range(len(sources)), rng)
            plans = [*(source.code for source in fresh), *(code for _, code in moves)]
            trials = yield [self.plan(problem, code) for code in plans]
            for source, trial in zip(fresh, trials, strict=False):
                source.trial = trial
            tried += trials
            _settle(problem, moves, trials[len(fresh) :])
            moves = self._moves(sources, self._onlookers(problem, sources, rng), rng)
            trials = yield [self.plan(problem, code) for _, code in moves]
            tried += trials
            _settle(problem, moves, trials)
            worn = max(range(len(sources)), key=lambda i: sources[i].failures)
            if sources[worn].failures >= self.limit:
                sources[worn] = _Source(self._drawn(problem, rng))
        return min(tried, key=lambda trial: trial[problem.minimise]).plan

    def plan(self, problem: Problem, code: Ints) -> Plan:
        """Return the plan of a code, scaled down by one factor to just keep the bounds where it exceeds them.

        Raises: Infeasible when the budget cannot be met.
        """

        def counts_at(factor: float) -> dict[str, int]:
            shares = factor * code / TENTHS
            return {
                site.name: site.allowed(share * site.size + 0.5)
                for site, share in zip(problem.sites, shares, strict=True)
            }

        plan = problem.keep(counts_at(1.0))
        return plan if problem.fits(plan) else problem.keep(problem.fill(problem.fit(counts_at)))

    @property
    def _top(self) -> int:
        return round(self.most * TENTHS)

    def _drawn(self, problem: Problem, rng: np.random.Generator) -> Ints:
        return rng.integers(1, self._top + 1, len(problem.sites))

    def _moves(
        self, sources: Sequence[_Source], which: Iterable[int], rng: np.random.Generator
    ) -> list[tuple[_Source, Ints]]:
        """Return these sources with the code that each is moved to."""
        moves = []
        for i in which:
            other = sources[(i + int(rng.integers(1, len(sources)))) % len(sources)].code
            code = sources[i].code.copy()
            places = rng.choice(len(code), min(self.changed, len(code)), replace=False)
            moved = code[places] + rng.uniform(-1, 1, len(places)) * (code - other)[places]
            code[places] = np.clip(np.rint(moved), 1, self._top).astype(np.int64)
            moves.append((sources[i], code))
        return moves

    def _onlookers(self, problem: Problem, sources: Sequence[_Source], rng: np.random.Generator) -> list[int]:
        """Return which source each onlooker flies to: going round, the best is always taken, the worst one in ten."""
        values = np.array([_value(problem, source) for source in sources])
        spread = np.ptp(values)
        likely = 0.1 + 0.9 * (values.max() - values) / spread if spread > 0 else np.ones(len(values))
        chosen: list[int] = []
        i = 0
        while len(chosen) < len(sources):
            if rng.random() < likely[i]:
                chosen.append(i)
            i = (i + 1) % len(sources)
        return chosen


def _value(problem: Problem, source: _Source) -> float:
    assert source.trial is not None
    return source.trial[problem.minimise]


def _settle(problem: Problem, moves: Sequence[tuple[_Source, Ints]], trials: Sequence[Trial]) -> None:
    """Let each move that is better than its source take its place."""
    for (source, code), trial in zip(moves, trials, strict=True):
        if trial[problem.minimise] < _value(problem, source):
            source.code, source.trial, source.failures = code, trial, 0
        else:
            source.failures += 1
