"""What holds for every allocator there is, and so for every one that is added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest

from penjing.allocators.driver import Driver
from penjing.allocators.problem import Problem
from penjing.core.errors import Infeasible, PlanError
from penjing.core.plan import Plan
from penjing.core.registry import build, entries, options
from penjing.core.search import Bound
from penjing.core.sites import Site

ALLOCATORS = sorted(entries("allocator"))
MANY = [4 + i % 7 for i in range(200)]
SEVERAL = MANY[:40]
THREE_COSTS = {"macs": 0.7, "params": 0.4, "memory": 0.9}

SHORT = {
    "trials": 3, "sources": 2, "cycles": 1, "population": 3, "iterations": 1, "parents": 2, "mutations": 1,
    "crossovers": 1, "updates": 2,
}  # fmt: skip
"""Options that make a search short, of those it has."""


def problem(sizes: Sequence[int], shares: Mapping[str, float], step: int = 1) -> Problem:
    """A chain of layers: MACs and parameters are products of neighbours, the memory is the widest place.

    ``shares`` are the bounds, as shares of what the whole chain costs.
    """
    sites = [Site(f"s{i}", "channels", n, (), np.arange(n), step=step) for i, n in enumerate(sizes)]
    rng = np.random.default_rng(0)
    scores = {site.name: 6 * rng.random(site.size) + 0.01 for site in sites}
    areas = [1.0 + i % 3 for i in range(len(sites))]

    def price(plan: Plan) -> Mapping[str, float]:
        kept = {site.name: site.size for site in sites} | {entry.site: len(entry.kept) for entry in plan}
        widths = [3, *kept.values(), 10]
        layers = [a * b for a, b in pairwise(widths)]
        return {
            "macs": sum(area * layer for area, layer in zip(areas, layers, strict=False)),
            "params": float(sum(layers)),
            "memory": max(area * width for area, width in zip(areas, kept.values(), strict=True)),
        }

    whole = price(Plan())
    bounds = [Bound(cost, share * whole[cost], f"{share}x") for cost, share in shares.items()]
    return Problem("channels", sites, scores, bounds, price)


def chosen(name: str, asked: Problem) -> Plan:
    """Return an allocator's plan; a search is short, and told what score each of its plans loses."""
    short = {key: value for key, value in SHORT.items() if key in options(entries("allocator")[name])}
    plan = Driver().run(build("allocator", {name: short}), asked)
    assert isinstance(plan, Plan)
    return plan


@pytest.mark.parametrize("name", ALLOCATORS)
@pytest.mark.parametrize(
    ("sizes", "shares"),
    [
        *product([[24], [16, 32, 64], SEVERAL], [{"macs": 0.5}, {"params": 0.3}, {"memory": 0.6}, THREE_COSTS]),
        (MANY, THREE_COSTS),
    ],
    ids=lambda value: f"{len(value)} sites" if isinstance(value, list) else str(value),
)
def test_every_bound_is_kept_or_the_problem_is_refused(name: str, sizes: list[int], shares: dict[str, float]) -> None:
    asked = problem(sizes, shares)
    try:
        plan = chosen(name, asked)
    except Infeasible as refused:
        # One that compares scores with a number of its own cannot seek a budget; all others have room here.
        assert getattr(entries("allocator")[name], "absolute", False)
        assert set(refused.best) >= set(shares)
        return
    costs = asked.price(plan)
    assert all(bound.met(costs[bound.cost]) for bound in asked.bounds), costs


@pytest.mark.parametrize("name", ALLOCATORS)
def test_the_plan_is_the_same_every_time(name: str) -> None:
    shares = {"macs": 0.95}  # which a threshold can meet as well
    assert chosen(name, problem(SEVERAL, shares)).key == chosen(name, problem(SEVERAL, shares)).key


@pytest.mark.parametrize("name", ALLOCATORS)
def test_counts_come_in_the_steps_of_the_sites(name: str) -> None:
    asked = problem([16, 32, 64], {"macs": 0.95}, step=8)
    assert all(len(entry.kept) % 8 == 0 for entry in chosen(name, asked))


@pytest.mark.parametrize("name", ALLOCATORS)
def test_blocks_of_one_unit_may_go_beside_channels(name: str) -> None:
    asked = problem([16, 32, 64], {"macs": 0.4})
    blocks = [Site(f"b{i}", "layers", 1, (), np.arange(0), least=0, rewrite="layers") for i in range(3)]
    scores = dict(asked.scores) | {site.name: np.array([20.0 * (i + 1)]) for i, site in enumerate(blocks)}
    whole = asked.price(Plan())["macs"]

    def price(plan: Plan) -> Mapping[str, float]:
        there = 3 - len(plan.of_rewrite("layers"))
        return {"macs": asked.price(Plan(tuple(e for e in plan if e.rewrite == "channels")))["macs"] + there * whole}

    bounds = [Bound("macs", 2.2 * whole, "0.55x")]
    both = Problem("channels and layers", [*asked.sites, *blocks], scores, bounds, price)
    both = replace(both, sites=[replace(s, rewrite=s.rewrite or "channels") for s in both.sites])
    try:
        plan = chosen(name, both)
    except Infeasible:
        assert getattr(entries("allocator")[name], "absolute", False)
        return
    assert price(plan)["macs"] <= 2.2 * whole
    assert all(len(e.kept) == 0 for e in plan if e.rewrite == "layers") and plan.of_rewrite("layers")
    assert all(len(e.kept) > 0 for e in plan if e.rewrite == "channels")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", ALLOCATORS)
def test_nothing_is_said_of_what_goes_with_a_block(name: str, share: float) -> None:
    blocks = [Site(f"b{i}", "layers", 1, (), np.arange(0), least=0, rewrite="layers") for i in range(4)]
    inner = [Site(f"c{i}", "channels", 16, (), np.arange(16), step=4, within=f"b{i}") for i in range(4)]
    sites = [*blocks, *(replace(site, rewrite="channels") for site in inner)]
    rng = np.random.default_rng(1)
    scores = {site.name: rng.random(site.size) * (6 if site in blocks else 1) for site in sites}

    def price(plan: Plan) -> Mapping[str, float]:
        gone, kept = plan.of_rewrite("layers"), plan.of_rewrite("channels")
        return {"macs": float(sum(len(kept.get(f"c{i}", range(16))) for i in range(4) if f"b{i}" not in gone))}

    try:
        plan = chosen(name, Problem("both", sites, scores, [Bound("macs", share * 64, f"{share}x")], price))
    except Infeasible:
        assert getattr(entries("allocator")[name], "absolute", False)
        return
    gone = plan.of_rewrite("layers")
    assert price(plan)["macs"] <= share * 64
    assert not any(f"c{i}" in plan.of_rewrite("channels") for i in range(4) if f"b{i}" in gone)


@pytest.mark.parametrize("name", ALLOCATORS)
def test_what_nothing_reaches_is_refused(name: str) -> None:
    with pytest.raises(Infeasible) as refused:
        chosen(name, problem([16, 32], {"macs": 1e-6}))
    assert refused.value.best["macs"] > 0


@pytest.mark.parametrize("name", ALLOCATORS)
def test_without_a_bound_it_chooses_by_itself_or_asks_for_one(name: str) -> None:
    try:
        chosen(name, problem([16, 32], {}))
    except PlanError as asks:
        assert name in str(asks) and "budget" in str(asks)


@pytest.mark.parametrize("name", ALLOCATORS)
def test_an_allocator_says_what_it_does(name: str) -> None:
    assert entries("allocator")[name].__doc__.splitlines()[0].endswith(".")
