"""Where the units of sites lie in what layers read and write while the model runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from penjing.core.sites import Site
from penjing.graph.graph import Graph


@dataclass(frozen=True, eq=False)
class View:
    """Where the units of a site lie in what a layer reads or writes: ``index`` along ``dim``, unit by unit.

    ``layer`` is a position in the graph; ``handed_on`` says that the layer writes the very units it reads.
    """

    site: Site
    layer: int
    dim: int
    index: Tensor
    handed_on: bool
    written: bool

    def by_unit(self, x: Tensor) -> Tensor:
        """Arrange an activation by unit: [n, units, repeats, *positions]."""
        x = (x.unsqueeze(0) if x.dim() == -self.dim else x).movedim(self.dim, 1)
        chosen = x.index_select(1, self.index.to(x.device))
        return chosen.reshape(x.shape[0], self.site.size, -1, *x.shape[2:])


def views_of(graph: Graph) -> dict[int, list[View]]:
    """Return, for each layer by position in the graph, the sites it reads, or writes if nothing reads them."""
    read = _found(graph, graph.sites, written=False)
    seen = {view.site.name for view in read}
    written = _found(graph, [site for site in graph.sites if site.name not in seen], written=True)
    views: dict[int, list[View]] = {}
    for view in [*read, *written]:
        views.setdefault(view.layer, []).append(view)
    return views


def gated(views: Mapping[int, Sequence[View]]) -> dict[int, list[View]]:
    """Return the views at which a gate on each unit stands, so that it multiplies the unit once on every way.

    A layer that hands its units on needs no gate of its own, which would count them twice, unless nothing else reads
    them.
    """
    every = [view for here in views.values() for view in here]
    last = {view.site.name for view in every if not view.handed_on}
    gates: dict[int, list[View]] = {}
    for view in every:
        if not view.handed_on or view.site.name not in last:
            gates.setdefault(view.layer, []).append(view)
    return gates


def _found(graph: Graph, sites: Sequence[Site], written: bool) -> list[View]:
    owner = np.full(max(1, graph.units), -1)
    for k, site in enumerate(sites):
        owner[site.ids] = k
    dims = graph.writing_dims if written else graph.reading_dims
    views = []
    for i, layer in enumerate(graph.layers):
        units = layer.out_units if written else layer.in_units
        whose = np.where(units >= 0, owner[np.maximum(units, 0)], -1)
        for k in np.unique(whose[whose >= 0]).tolist():
            index = np.flatnonzero(whose == k)
            site = sites[k]
            if len(np.unique(units[index])) == site.size and len(index) % site.size == 0:
                order = np.argsort(units[index], kind="stable")
                views.append(View(site, i, dims[i], torch.from_numpy(index[order]), layer.follows, written))
    return views
