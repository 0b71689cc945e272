"""The product of kept shares: against every plan there is, and where one layer would be starved."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
import pytest

from penjing.allocators.driver import Driver
from penjing.allocators.eigenvalue_product import lost
from penjing.allocators.problem import Problem
from penjing.core.plan import Plan
from penjing.core.registry import build
from penjing.core.search import Bound
from penjing.core.sites import Site
from penjing.core.units import Floats


def solved(scores: Mapping[str, Floats], limit: float, weights: Mapping[str, float]) -> dict[str, int]:
    sites = [Site(name, "ranks", len(found), (), np.arange(len(found))) for name, found in scores.items()]

    def price(plan: Plan) -> dict[str, float]:
        kept = {site.name: site.size for site in sites} | {entry.site: len(entry.kept) for entry in plan}
        return {"macs": sum(weights[name] * n for name, n in kept.items())}

    problem = Problem("svd", sites, scores, [Bound("macs", limit, f"{limit}")], price)
    plan = Driver().run(build("allocator", "eigenvalue_product"), problem)
    return {site.name: site.size for site in sites} | {entry.site: len(entry.kept) for entry in plan}


@pytest.mark.parametrize("seed", range(4))
def test_no_plan_within_the_budget_keeps_a_larger_product(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores: dict[str, Floats] = {name: np.sort(rng.gamma(0.5, 10 ** rng.uniform(-2, 2), 8))[::-1] for name in "abc"}
    weights = dict(zip("abc", (1.0, 2.5, 4.0), strict=True))
    limit = 0.5 * 8 * sum(weights.values())
    found = solved(scores, limit, weights)
    every = (dict(zip("abc", counts, strict=True)) for counts in product(range(1, 9), repeat=3))
    fitting = [counts for counts in every if sum(weights[name] * n for name, n in counts.items()) <= limit]
    losses = {name: lost(energies) for name, energies in scores.items()}

    def loss(counts: Mapping[str, int]) -> float:
        return float(sum(losses[name][n] for name, n in counts.items()))

    assert loss(found) <= min(map(loss, fitting)) * 1.01 + 1e-9
    assert sum(weights[name] * n for name, n in found.items()) <= limit


def test_a_layer_of_little_energy_is_not_starved() -> None:
    falling = 0.7 ** np.arange(16.0)
    found = solved({"loud": 1e6 * falling, "quiet": falling}, 16.0, {"loud": 1.0, "quiet": 1.0})
    assert abs(found["loud"] - found["quiet"]) <= 1


@pytest.mark.parametrize("allocator", ["eigenvalue_product", "global", {"knapsack": {"loss": "scores"}}])
def test_units_that_stay_in_an_order_are_not_counted_as_the_best_ones(allocator: object) -> None:
    order = np.arange(3)
    sites = [Site(name, "options", 3, (), np.arange(3), order=order) for name in "ab"]
    scores = {"a": np.array([1.0, 1.0, 90.0]), "b": np.array([90.0, 1.0, 1.0])}

    def price(plan: Plan) -> dict[str, float]:
        kept = {"a": 3, "b": 3} | {entry.site: len(entry.kept) for entry in plan}
        return {"macs": float(sum(kept.values()))}

    plan = Driver().run(build("allocator", allocator), Problem("x", sites, scores, [Bound("macs", 4.0, "4")], price))
    assert {"a": 3, "b": 3} | {entry.site: len(entry.kept) for entry in plan} == {"a": 3, "b": 1}
