"""What steps that learn what may go have in common: their options, where gates stand, the training, the cut."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from torch import nn

from penjing.allocators.problem import Problem
from penjing.core.errors import PlanError
from penjing.core.plan import Plan
from penjing.core.protocols import Rewrite, Term
from penjing.core.random import derive
from penjing.core.search import Bound
from penjing.core.sites import Site
from penjing.core.units import Floats
from penjing.data.data import Data
from penjing.data.divide import balance_of, pick
from penjing.data.splits import Split
from penjing.graph.blocks import removed
from penjing.graph.folds import with_folds
from penjing.graph.gates import Gates
from penjing.graph.graph import Graph
from penjing.graph.proof import prove
from penjing.rewrites.channels import channels
from penjing.rewrites.kernels import kernels
from penjing.rewrites.layers import layers
from penjing.rewrites.nested import nested
from penjing.rewrites.perform import blanked, perform
from penjing.steps.filed import file_certificate, file_training, file_widths, tell_epoch
from penjing.steps.patterns import chosen
from penjing.steps.price import Pricer
from penjing.steps.settle import Cut, aims, refolded, settle
from penjing.steps.state import Run, State
from penjing.steps.still_there import relate
from penjing.training.loop import fit
from penjing.training.options import Options
from penjing.training.schedule import learning_rate

LOOSE, TIGHT = 0.25, 0.75
"""Between these shares of a training a budget tightens: before, what is learned has no order yet; afterwards weights
learn with what is left."""

REWRITES: Mapping[str, Rewrite] = {"channels": channels(), "kernels": kernels(), "layers": layers()}
"""What learning may take away."""


@dataclass(frozen=True)
class Learner:
    """The options that steps have in common which learn, in one training, what may go.

    ``rounds`` is how often what is learned is cut, measured and corrected where a bound must be measured.
    """

    epochs: float = 20.0
    lr: float = 1e-2
    batch: int = 128
    images: int = 1024
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    budget: Mapping[str, Any] | str | None = None
    rounds: int = 4
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"

    @property
    def called(self) -> str:
        """The name that a recipe writes."""
        return type(self).__name__

    def refuse(self, *above: str) -> None:
        """Refuse common options that cannot be, and those of these names that are not above 0.

        Raises: PlanError naming the option.
        """
        for name in ("epochs", "lr", *above):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise PlanError(f"{self.called}: {name} must be a number above 0; got {value}.")
        for name in ("images", "batch", "rounds"):
            if getattr(self, name) < 1:
                raise PlanError(f"{self.called}: {name} must be 1 or more; got {getattr(self, name)}.")

    def lessons(self, data: Data, run: Run, weight_decay: float, epochs: float, name: str = "") -> Lessons:
        """Return on what to learn for so many epochs, and how; ``name`` tells several such trainings apart."""
        named = "/".join(filter(None, (self.called, name)))
        split, times = some_epochs(data, epochs, derive(run.seed, named))
        recipe = Options(
            epochs=times, lr=self.lr, batch=self.batch, weight_decay=weight_decay, precision=self.precision
        )
        return Lessons(named, split, recipe)


@dataclass(frozen=True, eq=False)
class Lessons:
    """A training: what is learned from, and how."""

    name: str
    split: Split
    recipe: Options

    @property
    def steps(self) -> int:
        """How many steps the optimiser takes."""
        return self.recipe.steps(len(self.split)) * self.recipe.epochs

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, from 0."""
        return learning_rate(step, self.steps, self.recipe.lr, self.recipe.warmup)

    def teach(self, model: nn.Module, terms: Sequence[Term], state: State, run: Run) -> None:
        """Train the model in place, the run's teacher teaching, and write down how it went."""
        val = state.data.val if state.data is not None and state.data.labelled else None
        relate(terms, state)
        history = fit(
            model, self.split, val, self.recipe, terms=terms, seed=derive(run.seed, f"{self.name}/train"),
            teacher=state.teacher, on_epoch=lambda row: tell_epoch(row, run, self.recipe.epochs),
            checkpoint=run.checkpoint(),
        )  # fmt: skip
        file_training(run, history, self.recipe, [type(term).__name__ for term in terms])


def with_ranks_that_pay(graph: Graph, include: Sequence[str], exclude: Sequence[str]) -> Graph:
    """Return the graph in which chains fold where they no longer pay, of those whose ranks match."""
    return with_folds(graph, chosen(graph, channels().find(graph), include, exclude))[0]


def gated_sites(step: str, graph: Graph, include: Sequence[str], exclude: Sequence[str]) -> list[Site]:
    """Return the sites of channels that a gate can stand on, in the order in which the network writes them.

    Raises: PlanError, naming the step, when there is none.
    """
    named = chosen(graph, channels().find(graph), include, exclude)
    found = [site for site in named if _has_gate(graph, site)]
    if not found:
        raise PlanError(f"{step}: no channel that may go is read by a layer and matches include; see penjing inspect.")
    return found


def gated_blocks(graph: Graph, ends: Collection[str], include: Sequence[str], exclude: Sequence[str]) -> list[Site]:
    """Return the sites of blocks, of those in ``ends``, that match."""
    return [site for site in chosen(graph, layers().find(graph), include, exclude) if site.name in ends]


def _has_gate(graph: Graph, site: Site) -> bool:
    try:
        Gates(graph, [site.name])
    except PlanError:
        return False
    return True


def some_epochs(data: Data, epochs: float, seed: int) -> tuple[Split, int]:
    """Return training pictures, class-balanced, and how many epochs over them make up ``epochs``, whole or not."""
    times = max(1, math.ceil(epochs))
    count = max(2, round(len(data.train) * epochs / times))
    if count >= len(data.train):
        return data.train, times
    return data.train.subset(pick(balance_of(data.train.labels, len(data.train)), count, seed, "some epochs")), times


def together(graph: Graph, sites: Sequence[Site], others: Sequence[Site]) -> list[Site]:
    """Return sites of channels and others, of blocks or kernels, for one plan: what lies in a block goes with it."""
    every = [*(replace(site, rewrite="channels") for site in sites), *others]
    return nested(graph, every, REWRITES)


def priced(sites: Sequence[Site], scores: Mapping[str, Floats], pricer: Pricer, run: Run) -> Problem:
    """Return the problem of keeping the units of the best scores within the bounds of a pricer."""
    return Problem(
        "channels", sites, scores, aims(pricer), pricer, run.seed, shown=pricer.shown, held_back=pricer.held_back
    )


def reachable(sites: Sequence[Site], pricer: Pricer, run: Run) -> Problem:
    """Return the same with all units alike, before anything is learned.

    Raises: Infeasible when not even the fewest units keep the bounds.
    """
    problem = priced(sites, {site.name: np.ones(site.size) for site in sites}, pricer, run)
    least = problem.keep({site.name: site.fewest for site in sites})
    if not problem.fits(least):
        problem.refuse(least)
    return problem


def rescored(problem: Problem, scores: Mapping[str, Floats]) -> Problem:
    """Return the problem with other scores, of which zero is a unit that is gone."""
    return replace(problem, scores=scores, _orders={}, _entries={})


def tightened(problem: Problem, done: float) -> Problem:
    """Return the problem with bounds that fall from the whole network's costs to what they are, with the share done."""
    whole = problem.price(Plan())
    left = min(max((TIGHT - done) / (TIGHT - LOOSE), 0.0), 1.0)
    bounds = [replace(b, limit=b.limit + left * max(0.0, whole[b.cost] - b.limit)) for b in problem.bounds]
    return replace(problem, bounds=bounds)


def within(problem: Problem) -> Plan:
    """Return the plan that keeps the units whose score is not zero, as far as the bounds allow.

    What goes beyond that are the units of the least scores among all sites.

    Raises: Infeasible when no plan keeps the bounds.
    """
    alive = {s.name: s.allowed(int((problem.scores[s.name] > 0).sum()) + s.step - 1) for s in problem.sites}
    plan = problem.keep(alive)
    if not problem.sites or problem.fits(plan):
        return plan
    ranked = np.sort(np.concatenate([problem.scores[site.name] for site in problem.sites]))[::-1]

    def counts(share: float) -> dict[str, int]:
        edge = ranked[min(int(share * len(ranked)), len(ranked) - 1)]
        above = {s.name: int((problem.scores[s.name] > edge).sum()) if share > 0 else 0 for s in problem.sites}
        return {s.name: min(alive[s.name], s.allowed(above[s.name] + s.step / 2)) for s in problem.sites}

    return problem.keep(problem.fit(counts))


def cut_proved(model: nn.Module, graph: Graph, plan: Plan) -> Cut:
    """Return what a plan leaves of the traced network, proved.

    Raises: PlanError when the proof fails.
    """
    smaller = copy.deepcopy(model)
    if not len(plan):
        return Cut(plan, smaller, None)
    perform(smaller, graph, plan, REWRITES)
    reference = blanked(model, graph, plan, REWRITES)
    certificate = prove(graph, reference, smaller, plan.of_rewrite("channels"), removed(graph, plan))
    if not certificate.ok:
        names = ", ".join(entry.site for entry in plan)
        raise PlanError(
            f"The cut of {names} fails its proof; leave it out with exclude, and please report the network."
        )
    return Cut(plan, smaller, certificate)


def file_cut(cut: Cut, graph: Graph, run: Run, rewrites: Collection[str]) -> Cut:
    """Write down a cut's widths and proof, and return it."""
    file_widths(run, graph, cut.plan, rewrites)
    if cut.certificate is not None:
        file_certificate(run, cut.certificate)
    return cut


def cut_learned(
    model: nn.Module, graph: Graph, problem: Problem, pricer: Pricer, run: Run, rounds: int, rewrites: Collection[str]
) -> Cut:
    """Cut what was learned to be worth nothing and as much more as the bounds want, measured where they must be.

    Raises: PlanError when a proof fails; Infeasible when the exported file keeps no bound within the rounds.
    """

    def make(bounds: Sequence[Bound]) -> Cut:
        return refolded(cut_proved(model, graph, within(replace(problem, bounds=bounds))), graph)

    return file_cut(settle(pricer, run, rounds, make), graph, run, rewrites)
