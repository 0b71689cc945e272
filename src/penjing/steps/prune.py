"""Prune: find sites, score their units, and cut what is worth least until the budget holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from penjing.allocators.driver import Driver
from penjing.core import console
from penjing.core.errors import PlanError
from penjing.core.plan import Plan
from penjing.core.protocols import Compared, Cost, Factoring, Measured, Rewrite
from penjing.core.registry import build, entries, register
from penjing.core.sites import Site
from penjing.core.units import Floats
from penjing.criteria import diagnose
from penjing.graph.evidence import Evidence
from penjing.graph.folds import with_folds
from penjing.graph.graph import Graph
from penjing.graph.quantized import refuse_quantized
from penjing.graph.trace import trace
from penjing.rewrites.factored import Factored
from penjing.rewrites.lighten import LIGHT, lighten
from penjing.rewrites.nested import nested
from penjing.rewrites.perform import perform, without_chains, without_roundings
from penjing.steps.choose import Chooser, Judge
from penjing.steps.ends import ends_of
from penjing.steps.filed import file_certificate, file_errors, file_widths
from penjing.steps.lightened import lightened
from penjing.steps.menus import with_menus
from penjing.steps.own_scores import in_one_unit, own_scores
from penjing.steps.patterns import chosen
from penjing.steps.pictures import seeing
from penjing.steps.price import Predicting, Pricer
from penjing.steps.sensitivity import sensitivity
from penjing.steps.settle import Cut
from penjing.steps.state import Run, State

MEASURE = {"error": {"images": 2048, "recalibrate": 2}}
"""What tried plans are judged by where neither the user nor the allocator says it."""

NORMS = ("l1", "l2", "fpgm")
"""Criteria that see nothing in a layer whose filters are all of one size; the report names such layers."""


@dataclass(frozen=True, eq=False)
class Scored:
    """What a cut knows before it knows its budget; ``tried`` are the values of plans that were measured, by key."""

    graph: Graph
    changes: Mapping[str, Rewrite]
    sites: Sequence[Site]
    scores: Mapping[str, Floats]
    tried: dict[str, float] = field(default_factory=dict)


@register("step")
@dataclass(frozen=True)
class prune:  # noqa: N801  (registered under its own name)
    """Remove units so that the budget holds on the exported file.

    ``criterion`` scores units, ``allocator`` decides how many of each site stay (by default greedy, and global for
    single weights), ``rewrite`` says what a unit is; of several, such as ``["channels", "layers"]``, one plan is made.
    ``include`` and ``exclude`` are patterns of site names; before a colon stands a kind, as in ``conv:*`` and
    ``linear:head*``, for sites of what such layers write, and ``rank:*``, for those within factorised layers (PRF).
    Bits are taken from the first and the last layer only where ``ends`` is true.
    ``images`` calibration pictures, with their labels where
    there are any, feed criteria that need data. ``step`` fixes the multiple that widths are rounded to; by default it
    is 4 (finer for the last units, so that the bound is hit), or, when latency is bounded, the better of 4 and what
    the target teaches. Where a bound must be measured (latency, size), the cut network is exported and measured, and
    the plan corrected, up to ``rounds`` times, before any training. ``normalise`` divides scores by their site's
    mean; by default where the criterion says that they are not comparable across sites, unless the allocator compares
    them with a number of its own. Where the error alone is bounded, the step seeks the fewest MACs that keep it on
    validation without training. ``budget`` replaces the run's for this step. ``towards`` goes that share of the way
    from the network as it is now to the budget, so that several cuts with training between them get there in rounds;
    nothing is measured on the way. ``measure`` is the cost that allocators which try several plans minimise, by default
    the error, or what the allocator prefers (``knapsack``: the divergence), on at most 2,048 validation pictures after
    batch norm is recalibrated; where no data tells it, they minimise the score lost.
    """

    criterion: Any = "jacobian"
    allocator: Any = None
    rewrite: str | tuple[str, ...] = "channels"
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    ends: bool = False
    images: int = 512
    step: int | None = None
    rounds: int = 4
    normalise: bool | None = None
    budget: Mapping[str, Any] | str | None = None
    towards: float = 1.0
    measure: Any = None

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        if isinstance(self.rewrite, list | tuple):
            object.__setattr__(self, "rewrite", self.rewrite[0] if len(self.rewrite) == 1 else tuple(self.rewrite))
        if not self.rewrites or len(set(self.rewrites)) < len(self.rewrites):
            raise PlanError(f"prune: rewrite names what may be cut, each once; got {list(self.rewrites)}.")
        factoring = [name for name in self.rewrites if issubclass(entries("rewrite").get(name, object), Factored)]
        if len(factoring) > 1:
            raise PlanError(f"prune: one plan factorises by one rewrite; got {' and '.join(factoring)}. Choose one.")
        if factoring and "weights" in self.rewrites:
            raise PlanError(f"prune: {factoring[0]} keeps no zeros; set weights to zero in a later step.")
        if self.allocator is None:
            object.__setattr__(self, "allocator", "global" if "weights" in self.rewrites else "greedy")
        if "weights" in self.rewrites and self.allocator in ("greedy", {"greedy": {}}):
            raise PlanError(
                "prune: the allocator greedy goes step by step, which does not end over single weights; use global."
            )
        for name in ("images", "rounds", "step"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise PlanError(f"prune: {name} must be a whole number, 1 or more; got {value!r}.")
        if not 0 < self.towards <= 1:
            raise PlanError(
                f"prune: towards is a share of the way to the budget, above 0 and at most 1; got {self.towards}."
            )
        for name in ("include", "exclude"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, (getattr(self, name),))

    families: ClassVar[tuple[str, ...]] = LIGHT
    """What layers are offered by the rewrite ``lighten``; the step of that name may say otherwise."""

    @property
    def rewrites(self) -> tuple[str, ...]:
        """The names of what may be cut."""
        return (self.rewrite,) if isinstance(self.rewrite, str) else self.rewrite

    @property
    def judged_by(self) -> Any:
        """The cost that tried plans are judged by.

        Raises: RecipeError for an allocator that is none.
        """
        if self.measure is not None:
            return self.measure
        return getattr(build("allocator", self.allocator), "measures", MEASURE)

    def __call__(self, state: State, run: Run) -> State:
        """Return the state with a smaller model.

        Raises: Infeasible before any training when the budget cannot be met, with the best point found; PlanError
        when nothing may be cut.
        """
        cut, _ = self.decide(state, run)
        return state.with_model(cut.model, cut.plan)

    def score(self, state: State, run: Run) -> Scored:
        """Find the sites and score their units: all that does not depend on the budget.

        Raises: PlanError when nothing may be cut.
        """
        refuse_quantized("prune", state.model)
        changes: dict[str, Rewrite] = {
            name: seeing(build("rewrite", name), state, self.images, run.seed) for name in self.rewrites
        }
        allocator, criterion = build("allocator", self.allocator), build("criterion", self.criterion)
        graph = trace(state.model, *state.example)
        graph, sites = with_folds(graph, self.sites(graph, changes))
        for change in changes.values():
            if isinstance(change, lighten):
                pricer = Predicting(graph, state, run, self.budget)
                sites = with_menus(graph, sites, change, state.model, pricer, run, self.families)
        raw = getattr(criterion, "comparable", False) or getattr(allocator, "absolute", False)
        return Scored(graph, changes, sites, self._scores(criterion, raw, graph, sites, changes, state, run))

    def decide(
        self, state: State, run: Run, pricing: type[Pricer] = Pricer, scored: Scored | None = None
    ) -> tuple[Cut, Pricer]:
        """Choose and prove a cut, and return it with what priced it; ``pricing`` says by which means.

        ``scored`` is what ``score`` found of this state before.

        Raises: as the step itself.
        """
        with run.stage("prune") as said:
            allocator, criterion = build("allocator", self.allocator), build("criterion", self.criterion)
            known = self.score(state, run) if scored is None else scored
            graph, sites = known.graph, known.sites
            pricer = (pricing if self.towards == 1 else Predicting)(graph, state, run, self.budget)
            chooser = Chooser(
                graph, [site for site in sites if site.name in known.scores], known.scores, pricer, state, run,
                changes=known.changes, allocator=allocator, step=self.step, judge=self._judge(state, run),
                folding=self.towards == 1,
            )  # fmt: skip
            chooser.driver.values.update(known.tried)
            with closing(chooser.driver):
                if not pricer.bounds and "error" in pricer.wanted:
                    chooser.within_error(self.images)
                if self.towards < 1:
                    pricer.approach(self.towards)
                if pricer.bounds:
                    said.append(chooser.lowest())
                cut = chooser.settle(self.rounds)
                known.tried.update(chooser.driver.values)
            if cut.certificate is not None:
                file_certificate(run, cut.certificate)
            self._file(criterion, graph, cut.plan, state, run)
            if any(isinstance(change, Factoring) for change in known.changes.values()):
                chained = without_roundings(cut.plan, known.changes)
                whole, made = state.copy_model(), cut.model
                perform(whole, graph, without_chains(cut.plan, known.changes), known.changes)
                if len(chained) < len(cut.plan):  # how far ranks lead away is told without the bits
                    made = state.copy_model()
                    perform(made, graph, chained, known.changes)
                file_errors(run, graph, chained, whole, made)
            for change in known.changes.values():
                if isinstance(change, lighten):
                    run.note("lightened", *lightened(graph, cut.plan, change, sites, state.model))
            run.note("sensitivity", sensitivity(cut.plan, chooser, run.at))
            _file_search(chooser.driver, run)
            _file_ruins(cut.plan, run)
            told = [f"{len(cut.plan)} of {len(sites)} sites", pricer.told(cut.plan), chooser.driver.said]
            said.append(", ".join(filter(None, told)))
        return cut, pricer

    def sites(self, graph: Graph, changes: Mapping[str, Rewrite]) -> list[Site]:
        """Return the sites that may change.

        Raises: PlanError when none is left, with the first reason.
        """
        found = [replace(site, rewrite=name) for name, change in changes.items() for site in change.find(graph)]
        kept = set() if self.ends else {f"{layer.name}/bits" for layer in ends_of(graph)}
        free = [site for site in found if site.name not in kept]
        if found and not free:
            names = " and ".join(site.name for site in found)
            raise PlanError(f"Nothing may be cut: {names} are of the first or last layer; ends: true takes them.")
        if mine := chosen(graph, free, self.include, self.exclude):
            return nested(graph, mine, changes)
        if free:
            names = ", ".join(site.name for site in free[:5])
            raise PlanError(
                f"Nothing may be cut: of {len(free)} sites ({names}{', ...' if len(free) > 5 else ''}) none matches "
                f"include {list(self.include)} without exclude {list(self.exclude)}."
            )
        others = set(self.rewrites) <= {"layers", "kernels"}
        notes = [*(() if others else graph.notes), *(graph.block_notes if self.rewrites != ("kernels",) else ())]
        why = f" {notes[0].where} {notes[0].why}." if notes else ""
        if self.rewrites == ("kernels",):
            why = " A kernel larger than 1x1 may be cropped where its convolution is a module and pads with zeros."
        if "layers" in self.rewrites and not notes:
            why = " A block may go where it is a module that returns what it reads once its residual branch is zero."
        raise PlanError(f"Nothing may be cut: the network has no site of {' or '.join(self.rewrites)}.{why}")

    def _judge(self, state: State, run: Run) -> Judge | None:
        """Return what trials are judged by; None where no data tells it, and the score lost decides."""
        cost = build("cost", self.judged_by)
        name = type(cost).__name__.rstrip("_")
        if not isinstance(cost, Measured):
            return Judge(name, lambda: cost)
        data = state.data

        def made() -> Cost:
            mine = cost.on(data, run.seed)
            # A cost that trains its trials has terms, and these learn from whoever teaches.
            other = state.teacher if getattr(mine, "terms", ()) else state.original
            return mine.beside(other) if isinstance(mine, Compared) else mine

        return None if data is None or not cost.fits(data) else Judge(name, made)

    def _scores(
        self,
        criterion: Any,
        raw: bool,
        graph: Graph,
        sites: Sequence[Site],
        changes: Mapping[str, Rewrite],
        state: State,
        run: Run,
    ) -> dict[str, Floats]:
        """Score every unit, ready to be compared across sites."""
        batches: Sequence[tuple[Tensor, Tensor | None]] = []
        if state.data is not None:
            batches = state.data.calibration_labelled(self.images, run.seed)
        evidence = Evidence(state.model, graph, batches, seed=run.seed)
        refusals: list[str] = []
        own = own_scores(graph, sites, changes, state.model)
        normalised = (not raw) if self.normalise is None else self.normalise
        if own and not normalised:
            own = in_one_unit(own, sites, changes, criterion, evidence)
        scores = {}
        for site in sites:
            try:
                found = own.get(site.name)
                if isinstance(found, PlanError):
                    raise found
                score = (criterion(site, evidence) if found is None else found).double().cpu().numpy()
            except PlanError as error:
                refusals.append(f"{site.name}: {error}")
                why = f"has no score: {error}"
                run.note("pinned", {"where": site.name, "units": site.size, "line": "", "why": why})
                continue
            if not np.isfinite(score).all():
                raise PlanError(f"{site.name} has scores that are not numbers; check its weights for NaN.")
            scores[site.name] = score
        if not scores:
            raise PlanError(f"No site can be scored. {refusals[0]}")
        if normalised:
            scores = {name: s / max(float(np.abs(s).mean()), 1e-30) for name, s in scores.items()}
        return scores

    def _file(self, criterion: Any, graph: Graph, plan: Plan, state: State, run: Run) -> None:
        """Write down what became of each site; a second cut goes on from the first one's line."""
        file_widths(run, graph, plan, self.rewrites)
        name = getattr(criterion, "__name__", type(criterion).__name__)
        if name in NORMS:
            for found in diagnose.report(state.model, graph):
                if not found.informative:
                    verdict = f"the criterion {name} carries no information here"
                    spreads = {"spread of l2 norms": found.cv_l2, "of noise": found.expected_cv_l2}
                    run.note("diagnostics", {"layer": found.layer, "verdict": verdict, **spreads})
        about = (*graph.notes, *(graph.block_notes if "layers" in self.rewrites else ()))
        notes = ({"where": n.where, "units": n.units, "why": n.why, "line": n.line} for n in about)
        told = [(line["where"], line["why"]) for line in run.noted("pinned")]
        run.note("pinned", *(note for note in notes if (note["where"], note["why"]) not in told))


def _file_ruins(plan: Plan, run: Run) -> None:
    """Name the layers that a choice of single weights leaves less than one a neuron, were they square."""
    for entry in plan:
        if entry.rewrite == "weights" and len(entry.kept) < math.sqrt(entry.size):
            few = f"only {len(entry.kept):,} of its {entry.size:,} weights are left"
            text = f"The layer of {entry.site} is likely ruined: {few}; exclude it, or keep more of it."
            console.remark(f"{run.at}: {text}")
            run.note("remarks", text)


def _file_search(driver: Driver, run: Run) -> None:
    """Write down what a search tried, and whether it was stopped."""
    run.note("trials", *driver.facts.values())
    for told in driver.told:
        run.note("searches", {"step": run.at, **told})
        if told["stopped"]:
            run.note("remarks", f"The search was stopped by hand after {told['trials']} trials; the best was taken.")
