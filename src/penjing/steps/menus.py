"""The menu of each layer: which of its options no other, nor the layer itself, beats on the target."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from penjing.core.errors import PlanError
from penjing.core.plan import Plan
from penjing.core.sites import Site
from penjing.graph.draft import Draft
from penjing.graph.graph import Graph
from penjing.rewrites.lighten import OPTION, lighten
from penjing.steps.price import Pricer
from penjing.steps.state import Run

CLOSE = 1e-9
"""Costs that differ by a smaller share are equal."""


def with_menus(
    graph: Graph, sites: Sequence[Site], change: lighten, model: nn.Module, pricer: Pricer, run: Run,
    families: Collection[str],
) -> list[Site]:  # fmt: skip
    """Return the sites, those of options with a menu: the options of these families worth having, cheapest first.

    Each is priced alone, in whatever the budget bounds (in MACs where it bounds nothing), and fitted to what its layer
    reads. An option is on the menu that lies on the front of costs and loss, the layer as it is among them. A layer of
    which none does stays whole, and is noted.

    Raises: PlanError when no layer has a menu.
    """
    layers = {layer.name: layer for layer in graph.layers}
    mine = {site.name.rpartition("/")[0]: site for site in sites if site.kind == "options"}
    offered = {
        name: [i for i, option in enumerate(change.every(graph, layers[name])) if option.family in families]
        for name in mine
    }
    lost = change.losses(model, offered)
    whole = _costs(graph, Plan(), pricer)
    found = [site for site in sites if site.kind != "options"]
    for name, site in mine.items():
        costs = {i: _costs(graph, _alone(site, i), pricer) for i in offered[name]}
        points = {i: (*costs[i], lost[name][i].answers) for i in costs}
        front = [i for i in points if not _beaten(points[i], [*(points[j] for j in points if j != i), (*whole, 0.0)])]
        menu = sorted(front, key=lambda i: (sum(a / b for a, b in zip(costs[i], whole, strict=True) if b), i))
        if menu:
            called = "-".join([OPTION, *map(str, menu)])
            size = len(menu) + 1
            found.append(replace(site, name=f"{name}/{called}", size=size, most=size - 1, order=np.arange(size)))
        else:
            why = f"stays whole: no option of {', '.join(families)} costs less here"
            run.note("pinned", {"where": name, "units": layers[name].out_channels, "line": "", "why": why})
    if not any(site.kind == "options" for site in found):
        raise PlanError(
            f"lighten: no layer has an option of {', '.join(families)} that costs less than the layer here; bound "
            "another cost, or offer other families."
        )
    return found


def _alone(site: Site, option: int) -> Plan:
    """Return the plan that takes one option of one site."""
    return Plan.of("lighten", {site.name: np.array([option])}, [site])


def _costs(graph: Graph, plan: Plan, pricer: Pricer) -> tuple[float, ...]:
    costs: Mapping[str, float] = pricer.of(Draft(graph, plan, pricer.state.copy_model), otherwise=("macs",))
    return tuple(costs.values())


def _beaten(point: tuple[float, ...], others: Sequence[tuple[float, ...]]) -> bool:
    """Tell whether another point is nowhere worse, and somewhere better."""

    def no_worse(other: tuple[float, ...]) -> bool:
        return all(a <= b + CLOSE * abs(b) for a, b in zip(other, point, strict=True))

    def better(other: tuple[float, ...]) -> bool:
        return any(a < b - CLOSE * abs(b) for a, b in zip(other, point, strict=True))

    return any(no_worse(other) and better(other) for other in others)
