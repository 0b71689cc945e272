"""Choose a plan whose cut is proved and whose bounds hold on the exported file, where only that file decides."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from penjing.allocators.driver import Driver
from penjing.allocators.problem import Problem
from penjing.core.errors import Infeasible, PlanError
from penjing.core.plan import Plan
from penjing.core.protocols import Cost, Rewrite
from penjing.core.search import Bound
from penjing.core.sites import Site
from penjing.core.units import Floats
from penjing.costs.units import resolve
from penjing.graph.blocks import removed
from penjing.graph.chains import prove_chains
from penjing.graph.graph import Graph
from penjing.graph.proof import Certificate, prove, worse
from penjing.rewrites.perform import blanked, perform, provable, without_chains, without_roundings
from penjing.steps.price import ARITHMETIC_STEP, Pricer, step_of
from penjing.steps.settle import Cut, refolded, settle
from penjing.steps.state import Run, State
from penjing.steps.trial import Attempt
from penjing.training.evaluate import evaluate
from penjing.training.recalibrate import recalibrate
from penjing.workers import Evaluator, hired

ERROR_ROUNDS = 6
"""How often the range of MACs is halved when only the error is bounded."""


@dataclass(frozen=True, eq=False)
class Judge:
    """What trials of plans are judged by: a cost's ``name``, and ``cost`` to make it once the first trial is due.

    Making it may read the user's data, which most cuts need not.
    """

    name: str
    cost: Callable[[], Cost]


def at_step(sites: Sequence[Site], step: int) -> list[Site]:
    """Return the sites with counts rounded so that *channels* come in multiples of ``step``.

    A unit may span several channels (the members of a group), and then few units make a step. Bits and options are no
    channels.
    """
    return [
        site
        if site.kind in ("bits", "options")
        else replace(site, step=min(step // math.gcd(step, site.width), site.size))
        for site in sites
    ]


class Chooser:
    """Makes plans for one cut of one network, applies them to copies, and proves and measures what comes out.

    A site that fails its own proof is noted as pinned and left out from then on. ``step`` is the multiple of channels
    that was asked for; None leaves it to the bounds. Only where ``folding`` do chains that fold become layers again:
    later cuts may want their ranks.
    """

    def __init__(
        self,
        graph: Graph,
        sites: Sequence[Site],
        scores: Mapping[str, Floats],
        pricer: Pricer,
        state: State,
        run: Run,
        *,
        changes: Mapping[str, Rewrite],
        allocator: Any,
        step: int | None,
        judge: Judge | None = None,
        folding: bool = True,
    ) -> None:
        self.graph, self.sites, self.scores, self.pricer = graph, list(sites), scores, pricer
        self.state, self.run, self.changes, self.asked_step = state, run, changes, step
        self.allocator, self.folding = allocator, folding
        self.step = step_of(step, list(changes), pricer)
        self.minimise = "lost" if judge is None else judge.name
        self.driver = Driver(run.journal, run.at, None if judge is None else partial(self._hired, judge))
        self.found: dict[int, Plan] = {}

    @property
    def _cut(self) -> str:
        """What is cut, in words."""
        return " and ".join(self.changes)

    def _hired(self, judge: Judge) -> Evaluator:
        """Return who tries plans, once the first is to be tried."""
        attempt = Attempt(self.state.model, self.graph.without_program(), self.changes, judge.cost())
        return hired(self.run.workers, attempt)

    # ------------------------------------------------------------------------------------------------- one plan

    def lowest(self) -> str:
        """Tell, before anything is decided, what the smallest plan would cost, for every step that may be taken."""
        told = []
        for step in self._steps():
            sites = at_step(self.sites, step)
            fewest = Plan.of(self._cut, {site.name: np.arange(site.fewest) for site in sites}, sites)
            costs = self.pricer(fewest)
            self.run.note("lowest", {"step": step, "costs": costs})
            shares = (f"{name} {value / self.pricer.original.cost(name):.3g}x" for name, value in costs.items())
            told.append(f"{', '.join(shares)} in steps of {step}")
        return f"lowest reachable: {'; '.join(told)}"

    def choose(self, bounds: Sequence[Bound]) -> Plan:
        """Let the allocator choose; under a latency bound in the target's steps and in fine ones, and take the better.

        Coarse steps carry greedy across the treads of a staircase; where the target has none at these widths, fine
        ones give up less. Better is what loses less score.

        Raises: Infeasible when no step meets the bounds.
        """
        finer = self.asked_step is None and not self.pricer.is_timed
        plans: list[tuple[float, Plan]] = []
        refused: Infeasible | None = None
        for step in self._steps():
            sites = at_step(self.sites, step)
            problem = Problem(
                self._cut, sites, self.scores, bounds, self.pricer, self.run.seed, finer, self.minimise,
                self.pricer.shown, self.pricer.held_back,
            )  # fmt: skip
            try:
                plan = self._allocated(problem, step)
                plans.append((problem.lost(plan), plan))
            except Infeasible as error:
                refused = error
        if not plans:
            assert refused is not None
            raise refused
        return min(plans, key=lambda one: one[0])[1]

    def _allocated(self, problem: Problem, step: int) -> Plan:
        """Return what the allocator chooses; once it has searched, what it found, fitted to the bounds as they are."""
        if step in self.found:
            return problem.near(self.found[step])
        plan = self.driver.run(self.allocator, problem)
        if self._searches:
            self.found[step] = plan
        return plan

    @property
    def _searches(self) -> bool:
        """Whether the allocator tries many plans."""
        return getattr(self.allocator, "trials", 0) > 0

    def _steps(self) -> list[int]:
        """Return the steps worth trying: the one there is and, where latency set a coarse one, a fine one too.

        A search takes long, and sees the treads in its prices.
        """
        coarse = self.asked_step is None and self.step > ARITHMETIC_STEP
        coarse = coarse and not self._searches
        return [self.step, ARITHMETIC_STEP] if coarse else [self.step]

    # -------------------------------------------------------------------------------------------------- its cut

    def proved(self, bounds: Sequence[Bound]) -> Cut:
        """Choose and apply a plan whose proof holds.

        Raises: Infeasible when no plan meets the bounds; PlanError when a proof fails that cannot be pinned down.
        """
        while True:
            plan = self.choose(bounds)
            model = self._applied(plan)
            if not provable(self.changes):
                return Cut(plan, model, None)
            certificate = self._certificate(plan, model)
            if certificate.ok:
                cut = Cut(plan, model, certificate)
                return refolded(cut, self.graph) if self.folding else cut
            failed = self._failing(plan)
            if not failed:
                raise PlanError(
                    "The whole cut fails its proof although each site alone holds; please report this network."
                )
            self.sites = [site for site in self.sites if site.name not in failed]
            self.found.clear()
            if not self.sites:
                raise PlanError("Every site fails its proof, so nothing may be cut; please report this network.")

    def _applied(self, plan: Plan) -> nn.Module:
        model = self.state.copy_model()
        perform(model, self.graph, plan, self.changes)
        return model

    def _certificate(self, plan: Plan, model: nn.Module) -> Certificate:
        """Prove what a plan removed, with every chain contracted into the layer that it computes.

        What the plan set to zero is zero in the original as well; weights are not rounded yet.
        """
        exact = without_roundings(plan, self.changes)
        if len(exact) < len(plan):
            plan, model = exact, self._applied(exact)
        whole = without_chains(plan, self.changes)
        original = blanked(self.state.model, self.graph, plan, self.changes)
        cut = model if len(whole) == len(plan) else self._applied(whole)
        certificate = prove(self.graph, original, cut, plan.of_rewrite("channels"), removed(self.graph, plan))
        if cut is model or not certificate.ok:
            return certificate
        return worse(certificate, prove_chains(self.graph, model, cut))

    def _failing(self, plan: Plan) -> list[str]:
        """Return the sites whose own cut fails its proof, and note why they stay whole."""
        failed = []
        for entry in plan:
            alone = Plan((entry,))
            certificate = self._certificate(alone, self._applied(alone))
            if not certificate.ok:
                failed.append(entry.site)
                why = f"failed its proof: {certificate.trouble or certificate.difference}"
                self.run.note("pinned", {"where": entry.site, "units": entry.size, "line": "", "why": why})
        return failed

    # ----------------------------------------------------------------------------------------------- its bounds

    def settle(self, rounds: int) -> Cut:
        """Choose, apply, prove and, where a bound wants it, measure, until the measured bounds hold without waste.

        Raises: Infeasible when nothing within the rounds holds.
        """
        return settle(self.pricer, self.run, rounds, self.proved)

    def _error(self, model: nn.Module, images: int) -> float:
        """Return the error on validation, in %, once batch norm is recalibrated."""
        data = self.state.data_for("prune")
        recalibrate(model, data.calibration(images, self.run.seed, size=128))
        return evaluate(model, data.val).error

    def within_error(self, images: int) -> None:
        """Bound the MACs by the least that keeps the error bound on validation, before training, by bisection.

        Raises: Infeasible when no cut keeps it.
        """
        limit = resolve(self.pricer.wanted["error"], self.pricer.original.cost("error"))
        whole = self.pricer.original.cost("macs")
        low, high = 0.0, 1.0
        for round_ in range(1, ERROR_ROUNDS + 1):
            share = (low + high) / 2
            self.found.clear()
            bound = Bound("macs", share * whole, f"{share:.3g}x")
            self.pricer.bound_only(bound)
            try:
                model = self.proved([bound]).model
            except Infeasible:
                low = share
                continue
            error = self.run.journal.recall(
                f"{self.run.at}: error at {share} of the MACs", partial(self._error, model, images)
            )
            self.run.note("rounds", {"round": round_, "predicted": {"macs": share * whole},
                                     "measured": {"error": error}})  # fmt: skip
            low, high = (low, share) if limit.met(error) else (share, high)
        if high == 1:
            raise Infeasible(f"error {limit.asked} leaves nothing to cut before training; bound another cost.", {})
        self.found.clear()
        self.pricer.bound_only(Bound("macs", high * whole, f"{high:.3g}x"))
