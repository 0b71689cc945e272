"""Prune: find sites, score their units, choose a plan within the budget, apply it, prove it, measure it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from typing import Any

import numpy as np
from torch import Tensor, nn

from penjing.allocators.problem import Problem
from penjing.core.errors import Infeasible, PlanError
from penjing.core.registry import build, register
from penjing.core.types import Bound, Floats, Plan, Site
from penjing.costs.units import resolve
from penjing.criteria import diagnose
from penjing.graph.evidence import Evidence
from penjing.graph.graph import Graph
from penjing.graph.proof import Certificate, prove
from penjing.graph.trace import trace
from penjing.steps.price import ARITHMETIC_STEP, Pricer, step_of
from penjing.steps.recover import data_of
from penjing.steps.state import Run, State
from penjing.training.evaluate import evaluate
from penjing.training.recalibrate import recalibrate

NORMS = ("l1", "l2", "fpgm")
"""Criteria that see nothing in a layer whose filters are all of one size; the report names such layers."""

ERROR_ROUNDS = 6
"""How often the range of MACs is halved when only the error is bounded."""

WASTE = 0.05
"""A plan whose measured cost is below its bound by more than this share is corrected and tried again."""

MARGIN = 0.98
"""A measured bound is aimed at with this factor, so that the noise of the last measurement does not break it."""


@register("step")
@dataclass(frozen=True)
class prune:  # noqa: N801  (registered under its own name)
    """Remove units so that the budget holds on the exported file.

    ``criterion`` scores units, ``allocator`` decides how many of each site stay, ``rewrite`` says what a unit is.
    ``include`` and ``exclude`` are patterns of site names. ``images`` calibration pictures feed criteria that need
    data. ``step`` fixes the multiple that widths are rounded to; by default it is 4 (finer for the last units, so
    that the bound is hit), or, when latency is bounded, the better of 4 and what the target teaches. Where a bound
    must be measured (latency, size), the cut network is exported and measured, and the plan corrected, up to
    ``rounds`` times, before any training. ``normalise`` divides scores by their site's mean; by default where the
    criterion says that they are not comparable across sites. Where the error alone is bounded, the step seeks the
    fewest MACs that keep it on validation without training. ``budget`` replaces the run's for this step.
    """

    criterion: Any = "jacobian"
    allocator: Any = "greedy"
    rewrite: str = "channels"
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    images: int = 512
    step: int | None = None
    rounds: int = 4
    normalise: bool | None = None
    budget: Mapping[str, Any] | None = None

    def __call__(self, state: State, run: Run) -> State:
        """Return the state with a smaller model.

        Raises: Infeasible before any training when the budget cannot be met, with the best point found; PlanError
        when nothing may be cut.
        """
        with run.stage("prune") as said:
            graph = trace(state.model, *state.example)
            pricer = Pricer(graph, state, run, self.budget)
            sites = self._sites(graph, step_of(self.step, self.rewrite, pricer))
            scores = self._scores(graph, sites, state, run)
            sites = [site for site in sites if site.name in scores]
            if not pricer.bounds and "error" in pricer.wanted:
                self._within_error(graph, sites, scores, pricer, state, run)
            said.append(self._lowest(sites, pricer, run))
            plan, model = self._settle(graph, sites, scores, pricer, state, run)
            self._file(graph, plan, state, run)
            said.append(f"{len(plan)} of {len(sites)} sites, {pricer.told(plan)}")
        return state.with_model(model, plan)

    def _sites(self, graph: Graph, step: int) -> list[Site]:
        """Return the sites that may change, with their rounding step.

        Raises: PlanError when none is left, with the first reasons.
        """
        found: Sequence[Site] = build("rewrite", self.rewrite).find(graph)
        chosen = [
            replace(site, step=min(step, site.size))
            for site in found
            if any(fnmatch(site.name, p) for p in self.include) and not any(fnmatch(site.name, p) for p in self.exclude)
        ]
        if not chosen:
            why = f" {graph.notes[0].where} {graph.notes[0].why}." if graph.notes else ""
            raise PlanError(f"Nothing may be cut: {len(found)} sites found, none matches {list(self.include)}.{why}")
        return chosen

    def _scores(self, graph: Graph, sites: list[Site], state: State, run: Run) -> dict[str, Floats]:
        """Score every unit, ready to be compared across sites."""
        criterion = build("criterion", self.criterion)
        batches: list[tuple[Tensor, Tensor | None]] = []
        if state.data is not None:
            batches = [(x, None) for x in state.data.calibration(self.images, run.seed)]
        evidence = Evidence(state.model, graph, batches, seed=run.seed)
        refusals: list[str] = []
        scores = {}
        for site in sites:
            try:
                score = criterion(site, evidence).double().cpu().numpy()
            except PlanError as error:
                refusals.append(f"{site.name}: {error}")
                run.note(
                    "pinned", {"where": site.name, "units": site.size, "line": "", "why": f"has no score: {error}"}
                )
                continue
            if not np.isfinite(score).all():
                raise PlanError(f"{site.name} has scores that are not numbers; check its weights for NaN.")
            scores[site.name] = score
        if not scores:
            raise PlanError(f"No site can be scored. {refusals[0]}")
        normalise = not getattr(criterion, "comparable", False) if self.normalise is None else self.normalise
        if normalise:
            scores = {name: s / max(float(np.abs(s).mean()), 1e-30) for name, s in scores.items()}
        return scores

    def _lowest(self, sites: list[Site], pricer: Pricer, run: Run) -> str:
        """Tell, before anything is decided, what the smallest plan would cost, for every step that may be taken."""
        told = []
        for stepped in self._stepped(sites, pricer):
            fewest = Plan.of(self.rewrite, {site.name: np.arange(site.fewest) for site in stepped}, stepped)
            costs = pricer(fewest)
            step = max(site.step for site in stepped)
            run.note("lowest", {"step": step} | costs)
            shares = (f"{name} {value / pricer.original.costs[name]:.3g}x" for name, value in costs.items())
            told.append(f"{', '.join(shares)} in steps of {step}")
        return f"lowest reachable: {'; '.join(told)}"

    def _within_error(
        self, graph: Graph, sites: list[Site], scores: Mapping[str, Floats], pricer: Pricer, state: State, run: Run
    ) -> None:
        """Bound the MACs by the least that keeps the error bound on validation, before training, by bisection."""
        data = data_of(state, "prune")
        limit = resolve(pricer.wanted["error"], evaluate(state.original, data.val).error)
        whole = pricer.original.costs["macs"]
        low, high = 0.0, 1.0
        for round_ in range(1, ERROR_ROUNDS + 1):
            share = (low + high) / 2
            bound = Bound("macs", share * whole, f"{share:.3g}x")
            pricer.bound(bound)
            try:
                _, model = self._proved(graph, sites, scores, [bound], pricer, state, run)
            except Infeasible:
                low = share
                continue
            recalibrate(model, data.calibration(self.images, run.seed, size=128))
            error = evaluate(model, data.val).error
            run.note("rounds", {"round": round_, "predicted": {"macs": share}, "measured": {"error": error}})
            if limit.met(error):
                high = share
            else:
                low = share
        if high < 1:
            pricer.bound(Bound("macs", high * whole, f"{high:.3g}x"))
        else:
            raise Infeasible(f"error {limit.asked} leaves nothing to cut before training; bound another cost.", {})

    def _settle(
        self,
        graph: Graph,
        sites: list[Site],
        scores: Mapping[str, Floats],
        pricer: Pricer,
        state: State,
        run: Run,
    ) -> tuple[Plan, nn.Module]:
        """Choose, apply, prove and, where a bound wants it, measure, until the measured bounds hold without waste.

        A plan that holds but leaves more than ``WASTE`` of every measured bound unused is taken only when the rounds
        find none that uses more.
        """
        aim = [replace(b, limit=b.limit * MARGIN) if pricer.is_measured(b.cost) else b for b in pricer.bounds]
        best: dict[str, float] = {}
        holds: _Holding | None = None
        for round_ in range(1, self.rounds + 1):
            try:
                plan, model = self._proved(graph, sites, scores, aim, pricer, state, run)
            except Infeasible:
                if holds is None:
                    raise
                break
            measured = pricer.measure(model)
            if measured:
                run.note("rounds", {"round": round_, "predicted": pricer.costs(plan), "measured": measured})
            shares = [measured[b.cost] / b.limit for b in pricer.bounds if b.cost in measured]
            if all(b.met(measured[b.cost]) for b in pricer.bounds if b.cost in measured):
                used = max(shares, default=1.0)
                if holds is None or used > holds.used:
                    holds = _Holding(plan, model, used, run.noted("certificates"))
                if used >= 1 - WASTE:
                    break
            best = dict(pricer(plan)) | measured
            pricer.correct(plan, measured)
        if holds is not None:
            run.book["certificates"] = holds.certificates
            return holds.plan, holds.model
        raise Infeasible(_missed(pricer.bounds, best, self.rounds), best)

    def _proved(
        self,
        graph: Graph,
        sites: list[Site],
        scores: Mapping[str, Floats],
        bounds: Sequence[Bound],
        pricer: Pricer,
        state: State,
        run: Run,
    ) -> tuple[Plan, nn.Module]:
        """Choose and apply a plan whose proof holds; a site that fails its own is taken out of ``sites``."""
        while True:
            plan = self._choose(sites, scores, bounds, pricer, run)
            model, failed = self._apply(graph, plan, state, run)
            if not failed:
                return plan, model
            sites[:] = [site for site in sites if site.name not in failed]

    def _choose(
        self, sites: list[Site], scores: Mapping[str, Floats], bounds: Sequence[Bound], pricer: Pricer, run: Run
    ) -> Plan:
        """Let the allocator choose; under a latency bound in the target's steps and in fine ones, and take the better.

        Coarse steps carry greedy across the treads of a staircase; where the target has none at these widths, fine
        ones give up less. Better is what loses less score.

        Raises: Infeasible when no step meets the bounds.
        """
        allocator = build("allocator", self.allocator)
        finer = self.step is None and not pricer.wants("latency")
        plans: list[Plan] = []
        refused: Infeasible | None = None
        for stepped in self._stepped(sites, pricer):
            try:
                plans.append(allocator(Problem(self.rewrite, stepped, scores, bounds, pricer, run.seed, finer)))
            except Infeasible as error:
                refused = error
        if not plans:
            assert refused is not None
            raise refused

        def lost(plan: Plan) -> float:
            return sum(float(scores[e.site].sum() - scores[e.site][e.kept].sum()) for e in plan)

        return min(plans, key=lost)

    def _stepped(self, sites: list[Site], pricer: Pricer) -> list[list[Site]]:
        """Return the sites as they are and, where latency is bounded and no step is asked for, in fine steps too."""
        coarse = max(site.step for site in sites) > ARITHMETIC_STEP
        if self.step is not None or not coarse or not pricer.wants("latency"):
            return [sites]
        return [sites, [replace(site, step=min(ARITHMETIC_STEP, site.step)) for site in sites]]

    def _apply(self, graph: Graph, plan: Plan, state: State, run: Run) -> tuple[nn.Module, list[str]]:
        """Apply a plan to a copy and prove it; return the sites whose own cut fails its proof."""
        model = state.copy_model()
        build("rewrite", self.rewrite).apply(model, graph, plan.of_rewrite(self.rewrite))
        if self.rewrite != "channels":
            return model, []
        kept = plan.of_rewrite("channels")
        certificate = prove(graph, state.model, model, kept)
        if certificate.ok:
            run.book["certificates"] = [_told(certificate)]
            return model, []
        failed = []
        for name, units in kept.items():
            alone = state.copy_model()
            build("rewrite", self.rewrite).apply(alone, graph, {name: units})
            certificate = prove(graph, state.model, alone, {name: units})
            if not certificate.ok:
                failed.append(name)
                why = f"failed its proof: {certificate.trouble or certificate.difference}"
                run.note("pinned", {"where": name, "units": graph.site(name).size, "line": "", "why": why})
        if not failed:
            raise PlanError("The whole cut fails its proof although each site alone holds; please report this network.")
        return model, failed

    def _file(self, graph: Graph, plan: Plan, state: State, run: Run) -> None:
        kept = plan.of_rewrite(self.rewrite)
        sizes = {site.name: site.size for site in (graph.sites if self.rewrite == "channels" else ())}
        sizes |= {entry.site: entry.size for entry in plan}
        for name, size in sizes.items():
            after = len(kept[name]) if name in kept else size
            run.note("sites", {"site": name, "kind": self.rewrite, "before": size, "after": after})
        if self.criterion in NORMS:
            for found in diagnose.report(state.model, graph):
                if not found.informative:
                    verdict = f"the criterion {self.criterion} carries no information here"
                    spreads = {"spread of l2 norms": found.cv_l2, "of noise": found.expected_cv_l2}
                    run.note("diagnostics", {"layer": found.layer, "verdict": verdict, **spreads})
        run.note("pinned", *({"where": n.where, "units": n.units, "why": n.why, "line": n.line} for n in graph.notes))


def _told(certificate: Certificate) -> dict[str, Any]:
    return {
        "name": certificate.name,
        "difference": certificate.difference,
        "tolerance": certificate.tolerance,
        "ok": certificate.ok,
        "detail": certificate.trouble,
    }


@dataclass(frozen=True, eq=False)
class _Holding:
    """A plan whose measured bounds hold, and the largest share of one that it uses."""

    plan: Plan
    model: nn.Module
    used: float
    certificates: list[Any]


def _missed(bounds: Sequence[Bound], best: Mapping[str, float], rounds: int) -> str:
    misses = [f"{b.cost} {b.asked} is {b.limit:.6g}, measured {best[b.cost]:.6g}" for b in bounds
              if b.cost in best and not b.met(best[b.cost])]  # fmt: skip
    return f"The exported file misses the budget after {rounds} rounds: {'; '.join(misses)}. Raise the bound."
