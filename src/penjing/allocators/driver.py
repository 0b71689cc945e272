"""Run a search: measure the plans it asks about, remember what came out, and stop it when the user says so."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from penjing.allocators.problem import Problem
from penjing.core import console
from penjing.core.errors import ResumeError
from penjing.core.interrupts import held
from penjing.core.journal import Journal
from penjing.core.plan import Plan
from penjing.core.search import Search, Trial
from penjing.workers import Evaluator


class _Stopped(Exception):
    """The user has seen enough."""


@dataclass
class Driver:
    """Measures plans for searches over one network, each plan once.

    ``hire`` returns who evaluates a plan to the number that a problem minimises; without it only the lost score is
    known. What is measured is written into ``journal`` under the name ``at``: a search that goes on is run again from
    its start, and what it asks is answered from there. ``trials`` are all so far, in the order asked; ``facts`` tell of
    each plan once, in that order, as plain data, and ``told`` what came of each search. ``said`` is what the allocator
    says of its last choice.
    """

    journal: Journal = field(default_factory=Journal)
    at: str = "search"
    hire: Callable[[], Evaluator] | None = None
    trials: list[Trial] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[int, dict[str, Any]] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    said: str = ""
    _numbers: dict[str, int] = field(default_factory=dict)
    _open: list[Plan] = field(default_factory=list)
    _searches: int = 0
    _crew: Evaluator | None = None

    def run(self, allocator: Any, problem: Problem) -> Plan:
        """Return the plan that an allocator chooses, at once or by a search.

        Ctrl-C ends a search that has measured a plan within the bounds: the best of those is taken.

        Raises: ResumeError when a search that goes on asks for other plans than before; what the allocator raises.
        """
        chosen = allocator(problem)
        if isinstance(chosen, Plan):
            return chosen
        self._searches += 1
        since, start, stopped = len(self.trials), time.perf_counter(), False
        expected = getattr(allocator, "trials", None)
        try:
            with console.bar(f"{self.at}: searching", expected) as advance:
                plan = self._through(chosen, problem, expected, advance)
        except (KeyboardInterrupt, _Stopped):
            chosen.close()
            plan, stopped = self._best_so_far(problem, since), True
        self.said = "; ".join(problem.said)
        if mine := self.trials[since:]:
            found = [trial[problem.minimise] for trial in mine if trial.plan.key == plan.key]
            name = getattr(allocator, "__name__", type(allocator).__name__).rstrip("_")
            facts = {**problem.facts, "allocator": name, "minimise": problem.minimise, "trials": len(mine)}
            facts["plans"] = len({trial.plan.key for trial in mine})
            seconds = round(time.perf_counter() - start, 2)
            self.told.append(facts | {"best": min(found, default=None), "seconds": seconds, "stopped": stopped})
        return plan

    def close(self) -> None:
        """End the workers."""
        if self._crew is not None:
            self._crew.close()
            self._crew = None

    def _through(self, search: Search, problem: Problem, expected: int | None, advance: console.Step) -> Plan:
        """Answer a search until it has chosen."""
        try:
            self._open = next(search)
            while True:
                new = list({plan.key: plan for plan in self._open if plan.key not in self.values}.values())
                for plan in self._open:  # one that was asked about when a search was stopped has its number already
                    self._numbers.setdefault(plan.key, len(self._numbers) + 1)
                if problem.minimise == "lost":
                    self.values |= {plan.key: problem.lost(plan) for plan in new}
                else:
                    self._evaluate(new, problem, expected, advance)
                trials = self._answered(problem)
                self._open = []
                self._open = search.send(trials)
        except StopIteration as end:
            chosen: Plan = end.value
            return chosen

    def _trial(self, plan: Plan, problem: Problem) -> Trial:
        return Trial(plan, {**problem.price(plan), problem.minimise: self.values[plan.key]})

    def _fact(self, trial: Trial, problem: Problem) -> dict[str, Any]:
        """Return a trial as plain data."""
        facts = {"step": self.at, "trial": self._numbers[trial.plan.key], "minimise": problem.minimise}
        costs = {name: round(value, 6) for name, value in trial.costs.items()}
        return {**facts, "costs": costs, "met": trial.meets(problem.bounds), "plan": trial.plan.key}

    def _answered(self, problem: Problem) -> list[Trial]:
        """Return the trials of the plans asked about, of those that are measured, and file them."""
        trials = [self._trial(plan, problem) for plan in self._open if plan.key in self.values]
        for fact in (self._fact(trial, problem) for trial in trials):
            self.facts.setdefault(fact["trial"], fact)
        self.trials += trials
        return trials

    def _best_so_far(self, problem: Problem, since: int) -> Plan:
        """Return the best plan of a search that is stopped, and write down that it is.

        Raises: the KeyboardInterrupt that is being handled, when there is nothing to choose from.
        """
        self._answered(problem)
        met = [trial for trial in self.trials[since:] if trial.meets(problem.bounds)]
        if not met:
            raise
        if self.journal.known(self._stop) != len(self.values):
            self.journal.found(self._stop, len(self.values))
        console.remark(f"{self.at}: the search is stopped; the best of its {len(self.trials) - since} trials is taken")
        return min(met, key=lambda trial: trial[problem.minimise]).plan

    @property
    def _stop(self) -> str:
        """What the journal calls the end of this search by hand."""
        return f"{self.at}: search {self._searches} stopped after"

    def _evaluate(self, plans: Sequence[Plan], problem: Problem, expected: int | None, advance: console.Step) -> None:
        """Find out the values of new plans: from the journal, or else from whoever evaluates.

        Raises: _Stopped where an earlier process was told to stop.
        """
        for plan in plans:
            name = self._name(plan)
            if (known := self.journal.known(name)) is not None:
                if known["plan"] != plan.key:
                    raise ResumeError(
                        f"{name} was of another plan when this run was stopped, so its search cannot go on; a search "
                        "must depend on its seed alone. Start the run anew in another folder."
                    )
                self.values[plan.key] = float(known[problem.minimise])
                advance(1, worked=False)
        if self.journal.known(self._stop) == len(self.values):
            raise _Stopped
        self._ask([plan for plan in plans if plan.key not in self.values], problem, expected, advance)

    def _name(self, plan: Plan) -> str:
        return f"{self.at}: trial {self._numbers[plan.key]}"

    def _ask(self, missing: Sequence[Plan], problem: Problem, expected: int | None, advance: console.Step) -> None:
        """Have plans evaluated, and write down each as it comes."""
        if not missing:
            return
        if self._crew is None:
            assert self.hire is not None, f"nobody measures {problem.minimise}"
            self._crew = self.hire()
        known = [self._trial(plan, problem) for plan in self._open if plan.key in self.values]  # from the journal
        met = (trial[problem.minimise] for trial in [*self.trials, *known] if trial.meets(problem.bounds))
        best = min(met, default=float("inf"))
        with closing(self._crew.evaluate(missing)) as answers:
            for i, value in answers:
                plan = missing[i]
                with held():  # or a run that goes on would know of a trial that this one did not
                    found = self.journal.found(self._name(plan), {"plan": plan.key, problem.minimise: value})
                    self.values[plan.key] = float(found[problem.minimise])
                trial = self._trial(plan, problem)
                if trial.meets(problem.bounds):
                    best = min(best, trial[problem.minimise])
                done = f"{len(self.values)} of {expected}" if expected else f"{len(self.values)}"
                text = f"{done} trials, least {problem.minimise} {best:.4g}"
                advance(1, f"{self.at}: {text}")
                least = best if best < float("inf") else None
                console.emit("trial", of=expected, best=least, **self._fact(trial, problem))
