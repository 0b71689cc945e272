"""Chains in whose place a cut puts the one layer that they compute, where they no longer pay.

Ranks are pruned from chains of full rank, which cost more than their layers. One that keeps all its ranks, or too many,
becomes a layer again, and so costs what that layer costs.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from penjing.core.errors import PlanError
from penjing.core.layers import Layer
from penjing.core.sites import Site
from penjing.factors.chain import merge, product
from penjing.graph.chains import as_layer, as_left, put_in, size_read
from penjing.graph.graph import Graph


def with_folds(graph: Graph, sites: Sequence[Site]) -> tuple[Graph, list[Site]]:
    """Return the graph that knows which chains fold, and the sites, as the graph's own, with the most ranks that pay.

    Those fold that one layer computes and whose ranks are all among the sites. Chains that pick channels, or are
    padded within by anything but zeros, stay.
    """
    named = {site.name: site for site in sites}
    folds = {path: at for path, at in graph.chains.items() if _may_fold(graph, path, named)}
    for path, places in folds.items():
        for name in _ranks(graph, path):
            named[name] = replace(named[name], most=_most(graph, places, path, named[name]))
    own = tuple(replace(site, most=named[site.name].most) if site.name in named else site for site in graph.sites)
    return replace(graph, folds=folds, sites=own), list(named.values())


def folded(graph: Graph, path: str, stages: Sequence[Layer]) -> Layer | None:
    """Return the layer that a chain of these stages computes; None where the chain has fewer MACs and parameters.

    Raises: PlanError for a chain that no single layer computes.
    """
    specs = [as_left(graph.modules[stage.weight], stage) for stage in stages]
    one = product(specs, path)
    layer = as_layer(
        stages[0], "", one, size_read(stages[0], specs[0]), stages[0].in_units, stages[-1].out_units
    )  # fmt: skip
    layer = replace(
        layer, name=path, weight=f"{path}.weight", bias=f"{path}.bias" if one.bias else None,
        follows=one.groups > 1 and stages[0].follows,
    )  # fmt: skip
    fewer = sum(stage.macs for stage in stages) < layer.macs and sum(map(parameters, stages)) < parameters(layer)
    return None if fewer else layer


def parameters(layer: Layer) -> int:
    """Return how many parameters a layer has, its bias among them."""
    return layer.weights + (0 if layer.bias is None else layer.out_channels)


def fold(model: nn.Module, paths: Collection[str]) -> nn.Module:
    """Return a copy with these chains contracted; the model itself where there are none."""
    smaller = copy.deepcopy(model) if paths else model
    for path in paths:
        put_in(smaller, path, merge(smaller.get_submodule(path), path))  # type: ignore[arg-type]
    return smaller


def _ranks(graph: Graph, path: str) -> tuple[str, ...]:
    """Return the names of the sites of a chain's ranks."""
    return graph.sites_with(graph.layers[i].out_units for i in graph.chains[path][:-1])


def _may_fold(graph: Graph, path: str, sites: Collection[str]) -> bool:
    ranks, stages = _ranks(graph, path), [graph.layers[i] for i in graph.chains[path]]
    specs = [graph.modules[stage.weight] for stage in stages]
    spans = [span for i in graph.chains[path] for span in graph.spans[i] if span is not None]
    if not ranks or spans or not set(ranks) <= set(sites):
        return False
    if _picks(graph, path) or any(spec.padding_mode != "zeros" for spec in specs[1:]):
        return False
    try:
        one = product(specs, path)
    except PlanError:
        return False
    return one.groups == 1 or not any(stage.follows for stage in stages)


def _picks(graph: Graph, path: str) -> bool:
    """Tell whether a stage of a chain picks channels, which alone among stages has a buffer."""
    return any(name.startswith(f"{path}.") for name in graph.buffer_shapes)


def _most(graph: Graph, places: Sequence[int], path: str, site: Site) -> int:
    """Return the most ranks of a site at which its chain pays while the others keep theirs; 0 for none."""

    def pays(count: int) -> bool:
        gone = np.zeros(max(1, graph.units), dtype=np.bool_)
        gone[site.ids[count:]] = True
        return folded(graph, path, [graph.layers[i].shrunk(gone) for i in places]) is None

    low, high = 0, site.size - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if pays(middle) else (low, middle - 1)
    return low
