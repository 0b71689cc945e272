"""What holds for every cost there is, and so for every one that is added."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from torch import nn

from penjing.core.plan import Plan
from penjing.core.protocols import Compared, Cost, Measured, Targeted
from penjing.core.registry import build, entries, options
from penjing.costs import latency
from penjing.data import digits
from penjing.graph.draft import Draft
from penjing.graph.graph import Graph
from penjing.graph.trace import plain, trace
from penjing.rewrites.channels import channels
from penjing.targets import find
from penjing.zoo import digits_net

COSTS = sorted(entries("cost"))
CHEAP = [name for name in COSTS if entries("cost")[name].cheap]


SHORT = {"epochs": 1, "train_images": 32}
"""Options that make a measurement short, of those it has."""

RISING = ("peak_power",)
"""Power of one layer: energy by time, which may fall faster."""


def cost_of(name: str, original: nn.Module) -> Cost:
    """Build a cost as it is used: for the digits, beside the original, upon an accelerator."""
    short = {key: value for key, value in SHORT.items() if key in options(entries("cost")[name])}
    cost: Cost = build("cost", {name: short})
    cost = cost.on(digits(), 0) if isinstance(cost, Measured) else cost
    cost = cost.beside(original) if isinstance(cost, Compared) else cost
    return cost.upon(find("gemmini_default").at(frame_rate=30.0)) if isinstance(cost, Targeted) else cost


@pytest.mark.parametrize("name", COSTS)
def test_a_cost_says_what_it_counts_and_in_what_unit(name: str) -> None:
    entry = entries("cost")[name]
    assert isinstance(entry.unit, str) and entry.unit and isinstance(entry.cheap, bool)
    assert entry.__doc__.splitlines()[0].endswith(".") and f"Units: {entry.unit}." in entry.__doc__


@pytest.mark.parametrize("name", COSTS)
def test_a_cost_is_finite_and_not_negative(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.0)
    model = plain(digits_net(pretrained=True))
    graph = trace(model, (digits().example(2),), proof=False)
    value = cost_of(name, model)(Draft(graph, Plan(), lambda: model))
    assert isinstance(value, float) and math.isfinite(value) and value >= 0


@pytest.mark.parametrize("name", [name for name in CHEAP if name not in RISING])
def test_a_cost_that_is_arithmetic_does_not_rise_when_a_unit_goes(name: str, traced: tuple[nn.Module, Graph]) -> None:
    """A cost that is measured, or is the error, may: times scatter, and a cut can happen to help."""
    model, graph = traced
    cost = cost_of(name, model)

    def priced(kept: dict[str, np.ndarray]) -> float:
        return cost(Draft(graph, Plan.of("channels", kept, graph.sites), lambda: model))

    sites = channels().find(graph)
    kept = {site.name: np.arange(site.size) for site in sites}
    values = [priced(kept)]
    for site in sites:  # everything goes in the end, so that the last units of one site meet the first of another
        while len(kept[site.name]) > 1:
            kept[site.name] = kept[site.name][1:]
            values.append(priced(kept))
    assert all(after <= before for before, after in pairwise(values)), values
    assert all(math.isfinite(value) and value >= 0 for value in values)


@pytest.mark.parametrize("name", CHEAP)
def test_a_cost_that_is_arithmetic_builds_no_network(name: str, traced: tuple[nn.Module, Graph]) -> None:
    """A search asks for it thousands of times."""

    def refuse() -> nn.Module:
        raise AssertionError(f"{name} is cheap, and yet it builds the network")

    cost_of(name, traced[0])(Draft(traced[1], Plan(), refuse))
