"""What steps that learn gates have in common: where gates may stand, how long to learn, the cut of what they close."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch

import numpy as np
from torch import nn

from penjing.allocators.problem import Problem
from penjing.core.errors import PlanError
from penjing.core.types import Floats, Plan, Site
from penjing.data.data import Data
from penjing.data.divide import balance_of, pick
from penjing.data.splits import Split
from penjing.graph.blocks import removed
from penjing.graph.gates import Gates
from penjing.graph.graph import Graph
from penjing.graph.proof import prove
from penjing.rewrites.channels import channels
from penjing.rewrites.layers import layers
from penjing.rewrites.nested import nested
from penjing.rewrites.perform import perform
from penjing.steps.filed import file_certificate, file_widths
from penjing.steps.patterns import chosen
from penjing.steps.price import Pricer
from penjing.steps.state import Run

LOOSE, TIGHT = 0.25, 0.75
"""Between these shares of a training a budget tightens: before, what is learned has no order yet; afterwards weights
learn with what is left."""


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
    return [
        site
        for site in layers().find(graph)
        if site.name in ends
        and any(fnmatch(site.name, p) for p in include)
        and not any(fnmatch(site.name, p) for p in exclude)
    ]


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


def together(graph: Graph, sites: Sequence[Site], blocks: Sequence[Site]) -> list[Site]:
    """Return sites of channels and of blocks for one plan: what lies within a block goes with it."""
    every = [*(replace(site, rewrite="channels") for site in sites), *blocks]
    return nested(graph, every, {"channels": channels(), "layers": layers()})


def priced(sites: Sequence[Site], scores: Mapping[str, Floats], pricer: Pricer, run: Run) -> Problem:
    """Return the problem of keeping the units of the best scores within the bounds of a pricer."""
    return Problem(
        "channels", sites, scores, pricer.bounds, pricer, run.seed, shown=pricer.shown, held_back=pricer.held_back
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


def cut_channels(
    model: nn.Module, graph: Graph, plan: Plan, run: Run, rewrites: Sequence[str] = ("channels",)
) -> nn.Module:
    """Return a copy of the traced network without the channels and blocks a plan removes, proved; write down both.

    Raises: PlanError when the proof fails.
    """
    file_widths(run, graph, plan, rewrites)
    smaller = copy.deepcopy(model)
    if not len(plan):
        return smaller
    perform(smaller, graph, plan, {"channels": channels(), "layers": layers()})
    certificate = prove(graph, model, smaller, plan.of_rewrite("channels"), removed(graph, plan))
    if not certificate.ok:
        names = ", ".join(entry.site for entry in plan)
        raise PlanError(
            f"The cut of {names} fails its proof; leave it out with exclude, and please report the network."
        )
    file_certificate(run, certificate)
    return smaller
