"""What the layers of a cut with menus became: which family each wants on the target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from penjing.core.plan import Plan
from penjing.core.sites import Site
from penjing.graph.graph import Graph
from penjing.rewrites.lighten import lighten, menu_of


@dataclass(frozen=True)
class Lightened:
    """A layer with a menu: the family and ranks it took, none where it stays, and what it was ``offered``.

    ``macs`` are those before and after. ``error`` is the share of its squared response that the quick fit misses which
    the choice was made by; the fit of what is taken misses no more.
    """

    layer: str
    family: str
    ranks: list[int]
    macs: list[int]
    error: float
    offered: list[str]


def lightened(
    graph: Graph, plan: Plan, change: lighten, sites: Sequence[Site], model: nn.Module
) -> Iterator[dict[str, Any]]:
    """Yield what became of each layer of a model that has a menu among the sites, as plain data."""
    chosen, layers = change.chosen(graph, plan.of_rewrite("lighten")), {one.name: one for one in graph.layers}
    for site in sites:
        if site.kind != "options":
            continue
        name = site.name.rpartition("/")[0]
        layer, every = layers[name], change.every(graph, layers[name])
        offered = [str(every[i]) for i in menu_of(site.name, len(every))]
        one = Lightened(name, "", [], [layer.macs, layer.macs], 0.0, offered)
        if option := chosen.get(name):
            at = every.index(option)
            error = change.losses(model, {name: [at]})[name][at].error
            one = Lightened(name, option.family, list(option.ranks), [layer.macs, option.macs], error, offered)
        yield asdict(one)
