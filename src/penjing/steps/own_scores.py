"""What ranks and bits hold, by the rewrites that score their units themselves: all layers side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.core.protocols import Factoring, Quantizing, Rewrite
from penjing.core.types import Site
from penjing.factors.side_by_side import side_by_side
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
