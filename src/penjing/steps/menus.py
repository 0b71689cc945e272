"""The menu of each layer: which of its options no other, nor the layer itself, beats on the target."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from penjing.core.errors import PlanError
from penjing.core.types import Plan, Site
from penjing.graph.draft import Draft
from penjing.graph.graph import Graph
from penjing.rewrites.lighten import lighten
from penjing.steps.price import Pricer
from penjing.steps.state import Run

CLOSE = 1e-9
"""Costs that differ by a smaller share are equal."""


def with_menus(
    graph: Graph, sites: Sequence[Site], change: lighten, model: nn.Module, pricer: Pricer, run: Run,
    families: Collection[str],
) -> list[Site]:  # fmt: skip
    """Return the sites, those of options with a menu: the options of these families that are worth having.

    Each is priced alone, in whatever the budget bounds (in MACs where it bounds nothing), and fitted to what its layer
    reads. An option stays that lies on the front of costs and loss, the layer as it is among them. A layer of which
    none does stays whole, and is noted.

    Raises: PlanError when no layer has a menu.
    """
    mine = [site for site in sites if site.kind == "options"]
    offered = {site.name: _offered(graph, site, change, families) for site in mine}
    lost = change.losses(model, offered)
    whole = _costs(graph, Plan(), pricer)
    found: list[Site] = []
    for site in sites:
        if site.kind != "options":
            found.append(site)
            continue
        costs = {i: _costs(graph, _alone(site, i), pricer) for i in offered[site.name]}
        points = {i: (*costs[i], lost[site.name][i].answers) for i in costs}
        menu = [i for i in points if not _beaten(points[i], [*(points[j] for j in points if j != i), (*whole, 0.0)])]
        if menu:
            rest = [i for i in range(site.size) if i not in menu]
            found.append(replace(site, order=np.array([*menu, *rest]), most=len(menu)))
        else:
            why = f"stays whole: no option of {', '.join(families)} costs less here"
            note = {"where": site.name.rpartition("/")[0], "units": 1, "line": "", "why": why}
            run.note("pinned", note)
    if not any(site.kind == "options" for site in found):
        raise PlanError(
            f"lighten: no layer has an option of {', '.join(families)} that costs less than the layer here; bound "
            "another cost, or offer other families."
        )
    return found


def _offered(graph: Graph, site: Site, change: lighten, families: Collection[str]) -> list[int]:
    layer = next(layer for layer in graph.layers if layer.weight == site.slots[0].tensor)
    return [i for i, option in enumerate(change.every(graph, layer)) if option.family in families]


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
