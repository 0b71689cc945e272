"""What steps that learn gates have in common: where gates may stand, how long to learn, the cut of what they close."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from fnmatch import fnmatch

from torch import nn

from penjing.core.errors import PlanError
from penjing.core.types import Plan, Site
from penjing.data.data import Data
from penjing.data.divide import balance_of, pick
from penjing.data.splits import Split
from penjing.graph.gates import Gates
from penjing.graph.graph import Graph
from penjing.graph.proof import prove
from penjing.rewrites.channels import channels
from penjing.steps.filed import file_certificate, file_widths
from penjing.steps.state import Run


def gated_sites(step: str, graph: Graph, include: Sequence[str], exclude: Sequence[str]) -> list[Site]:
    """Return the sites of channels that a gate can stand on, in the order in which the network writes them.

    Raises: PlanError, naming the step, when there is none.
    """
    found = [
        site
        for site in channels().find(graph)
        if any(fnmatch(site.name, p) for p in include)
        and not any(fnmatch(site.name, p) for p in exclude)
        and _has_gate(graph, site)
    ]
    if not found:
        raise PlanError(f"{step}: no channel that may go is read by a layer and matches include; see penjing inspect.")
    return found


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


def cut_channels(model: nn.Module, graph: Graph, plan: Plan, run: Run) -> nn.Module:
    """Return a copy of the traced network without the channels that a plan removes, proved, and write down both.

    Raises: PlanError when the proof fails.
    """
    file_widths(run, graph, plan, ["channels"])
    smaller, kept = copy.deepcopy(model), plan.of_rewrite("channels")
    if not kept:
        return smaller
    channels().apply(smaller, graph, kept)
    certificate = prove(graph, model, smaller, kept)
    if not certificate.ok:
        names = ", ".join(kept)
        raise PlanError(
            f"The cut of {names} fails its proof; leave it out with exclude, and please report the network."
        )
    file_certificate(run, certificate)
    return smaller
