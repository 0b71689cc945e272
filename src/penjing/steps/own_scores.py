"""What ranks and bits hold, by the rewrites that score their units themselves: all layers side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.core.protocols import Factoring, Quantizing, Rewrite
from penjing.core.sites import Site
from penjing.factors.side_by_side import side_by_side
from penjing.graph.evidence import Evidence
from penjing.graph.graph import Graph
from penjing.rewrites.factored import Factored


def own_scores(
    graph: Graph, sites: Sequence[Site], changes: Mapping[str, Rewrite], model: nn.Module
) -> dict[str, Tensor | PlanError]:
    """Return what rewrites that score their units themselves say of these sites, or why they cannot."""

    def scored(site: Site) -> Tensor | PlanError:
        change = changes[site.rewrite]
        assert isinstance(change, Factoring | Quantizing)
        try:
            return change.scores(model, site)
        except PlanError as error:
            return error

    own, needs = [], []
    for site in sites:
        change = changes[site.rewrite]
        if isinstance(change, Factoring | Quantizing):
            own.append(site)
            needs.append(0)
        if isinstance(change, Factored):
            change.look(model)
            needs[-1] = change.needs(graph.modules[site.slots[0].tensor])
    found = side_by_side(scored, own, needs, "scoring ranks and bits") if own else []
    return {site.name: score for site, score in zip(own, found, strict=True)}


def in_one_unit(
    own: Mapping[str, Tensor | PlanError],
    sites: Sequence[Site],
    changes: Mapping[str, Rewrite],
    criterion: Any,
    evidence: Evidence,
) -> dict[str, Tensor | PlanError]:
    """Return these scores in the unit of a criterion that can tell what noise in a weight costs.

    Shares of layers are in no unit that other scores have, so that it matters where several rewrites meet; scores of
    one alone stay as they are, and so do all where the criterion cannot tell of a layer: half a unit is none.
    """
    of_noise = getattr(criterion, "of_noise", None)
    if of_noise is None or len({site.rewrite for site in sites}) < 2:
        return dict(own)
    shares = {name for name, change in changes.items() if getattr(change, "shares", True)}
    weights = {site.name: site.slots[0].tensor for site in sites if site.name in own and site.rewrite in shares}
    try:
        cost = {weight: of_noise(weight, evidence) for weight in dict.fromkeys(weights.values())}
    except (PlanError, KeyError):
        return dict(own)
    told = {name: own[name] for name in weights}
    return dict(own) | {
        name: score if isinstance(score, PlanError) else score * cost[weights[name]] for name, score in told.items()
    }
