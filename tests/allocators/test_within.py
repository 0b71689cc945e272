"""Channels in blocks: a block that goes is lost once, and with it every decision about what lies within it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.allocators.around import Around
from penjing.allocators.driver import Driver
from penjing.allocators.greedy import greedy
from penjing.allocators.knapsack import knapsack
from penjing.allocators.problem import Problem
from penjing.allocators.sensitivity import by_scores, total
from penjing.allocators.simple import uniform
from penjing.core.plan import Entry, Plan
from penjing.core.search import Bound
from penjing.core.sites import Site
from penjing.core.units import Floats
from penjing.workers import Here


def network(
    scores: Mapping[str, Sequence[float]],
    blocks: Mapping[str, Sequence[str]],
    limit: float,
    minimise: str = "lost",
    nested: bool = True,
) -> Problem:
    """Channels that cost 1 each and blocks that cost 1 beside what is left in them; ``blocks`` name what lies in each.

    As of a network's layers, nothing is spent on what lies in a block that is gone.
    """
    outer = {name: block for block, names in blocks.items() for name in names}
    sites = [
        Site(name, "layers", 1, (), np.arange(0), least=0, rewrite="layers")
        if name in blocks
        else Site(
            name,
            "channels",
            len(mine),
            (),
            np.arange(0),
            within=outer.get(name, "") if nested else "",
            rewrite="channels",
        )
        for name, mine in scores.items()
    ]

    def price(plan: Plan) -> Mapping[str, float]:
        kept = {site.name: site.size for site in sites} | {entry.site: len(entry.kept) for entry in plan}
        return {"macs": float(sum(n for name, n in kept.items() if name not in outer or kept[outer[name]]))}

    arrays = {name: np.array(mine, dtype=float) for name, mine in scores.items()}
    return Problem("both", sites, arrays, [Bound("macs", limit, f"{limit}")], price, minimise=minimise)


def counts(problem: Problem, plan: Plan) -> dict[str, int]:
    return {entry.site: len(entry.kept) for entry in plan}


def chosen(allocator: object, problem: Problem) -> Plan:
    return Driver().run(allocator, problem)


def ways(problem: Problem) -> list[Plan]:
    """Every plan there is."""
    every = itertools.product(*(range(site.least, site.size + 1) for site in problem.sites))
    return [problem.keep(dict(zip((s.name for s in problem.sites), way, strict=True))) for way in every]


def least_lost(problem: Problem) -> float:
    return min(problem.lost(plan) for plan in ways(problem) if problem.fits(plan))


def normal(problem: Problem, plan: Plan) -> bool:
    """Whether a plan says nothing of what goes anyway."""
    gone = {entry.site for entry in plan if not len(entry.kept)}
    return not any(site.within in gone for site in problem.sites if site.name in counts(problem, plan))


TWO = {"b": [9.0], "b.1": [4.0, 3.0, 2.0, 1.0], "b.2": [5.0, 5.0], "c": [8.0, 7.0, 6.0]}


def test_plans_say_nothing_of_what_goes_with_a_block() -> None:
    problem = network(TWO, {"b": ["b.1", "b.2"]}, 9)
    assert counts(problem, problem.keep({"b": 0, "b.1": 2, "c": 1})) == {"b": 0, "c": 1}
    assert counts(problem, problem.keep({"b": 1, "b.1": 2, "c": 1})) == {"b.1": 2, "c": 1}
    everything = {"b": np.arange(0), "b.1": np.arange(2), "c": np.arange(1)}
    assert counts(problem, Plan.of("both", everything, problem.sites)) == {"b": 0, "c": 1}


def test_a_block_that_goes_is_lost_once() -> None:
    problem = network(TWO, {"b": ["b.1", "b.2"]}, 9)
    assert problem.lost(problem.keep({"b": 0, "b.1": 2})) == 9.0
    assert problem.lost(problem.keep({"b": 1, "b.1": 2})) == 3.0
    both = Plan((Entry("layers", "b", np.arange(0), 1), Entry("channels", "b.1", np.arange(2), 4)))
    assert problem.lost(both) == total(problem, by_scores(problem), both) == 9.0


def test_a_block_costs_only_what_is_left_of_it_to_lose() -> None:
    problem = network(TWO, {"b": ["b.1", "b.2"]}, 9)
    block, inner = problem.sites[0], problem.sites[1]
    whole = {"b": 1, "b.1": 4, "b.2": 2, "c": 3}
    assert problem.lost_more(whole, block, 0) == 9.0
    assert problem.lost_more(whole, inner, 2) == 3.0
    assert problem.lost_more({**whole, "b.1": 2}, block, 0) == 6.0
    assert problem.lost_more({**whole, "b.1": 2, "b.2": 1}, block, 0) == 1.0


def test_sites_lie_in_one_another_however_deep() -> None:
    sites = [
        Site("stage", "layers", 1, (), np.arange(0), least=0),
        Site("block", "layers", 1, (), np.arange(0), least=0, within="stage"),
        Site("conv", "channels", 4, (), np.arange(0), within="block"),
    ]
    scores = {"stage": np.array([9.0]), "block": np.array([5.0]), "conv": np.ones(4)}
    problem = Problem("both", sites, scores, [], lambda _: {})
    assert counts(problem, problem.keep({"stage": 0, "block": 0, "conv": 1})) == {"stage": 0}
    assert problem.lost_more({"stage": 1, "block": 1, "conv": 2}, sites[0], 0) == 7.0
    assert problem.lost_more({"stage": 1, "block": 0, "conv": 2}, sites[0], 0) == 4.0, "the block's 5 are lost already"
    assert [site.name for site in problem.outer(sites[2])] == ["stage", "block"]


def test_greedy_takes_a_block_whose_channels_have_paid_for_part_of_it() -> None:
    """The two worst channels of b go first. What is left of b then costs 8.5 for 3, less than its next channel."""
    scores = {"c": [10.0, 8.0, 5.0, 1.0], "a": [14.8], "a.1": [6.0, 5.0], "b": [10.5], "b.1": [6.0, 1.0, 1.0, 3.0]}
    problem = network(scores, {"a": ["a.1"], "b": ["b.1"]}, 7)
    assert counts(problem, chosen(greedy(floor=0.0), problem)) == {"b": 0}
    assert problem.lost(chosen(greedy(floor=0.0), problem)) == least_lost(problem) == 10.5
    apart = network(scores, {"a": ["a.1"], "b": ["b.1"]}, 7, nested=False)
    assert problem.lost(chosen(greedy(floor=0.0), apart)) == 16.8, "twice paid for, b would stay and a would go"


def test_greedy_moves_nothing_in_a_block_that_is_gone() -> None:
    problem = network({"c": [9.0, 8.0, 7.0], "b": [1.0], "b.1": [2.0] * 4}, {"b": ["b.1"]}, 2)
    assert counts(problem, chosen(greedy(floor=0.0), problem)) == {"c": 2, "b": 0}


def test_the_room_that_is_left_brings_back_a_block() -> None:
    problem = network({"c": [1.0] * 4, "b": [5.0], "b.1": [2.0, 2.0, 2.0]}, {"b": ["b.1"]}, 7)
    filled = problem.fill({"c": 4, "b": 0, "b.1": 1})
    assert filled == {"c": 4, "b": 1, "b.1": 2}
    poor = network({"c": [1.0] * 4, "b": [3.0], "b.1": [2.0, 2.0, 2.0]}, {"b": ["b.1"]}, 6)
    assert poor.fill({"c": 4, "b": 0, "b.1": 1})["b"] == 0, "with a third of it, more would be lost than without it"


@pytest.mark.parametrize("limit", range(2, 16))
def test_the_knapsack_chooses_what_brute_force_does(limit: int) -> None:
    rng = np.random.default_rng(limit)
    scores = {"a": rng.lognormal(0, 1, 3)}
    for i in range(2):
        scores |= {
            f"b{i}": rng.lognormal(1, 0.7, 1),
            f"b{i}.1": rng.lognormal(0, 1, 3),
            f"b{i}.2": rng.lognormal(0, 1, 3),
        }
    problem = network(scores, {f"b{i}": [f"b{i}.1", f"b{i}.2"] for i in range(2)}, limit)
    plan = chosen(knapsack(floor=0.0, gap=0.0), problem)
    assert problem.fits(plan) and normal(problem, plan)
    assert problem.lost(plan) == pytest.approx(least_lost(problem))


def test_a_block_comes_back_with_part_of_its_channels() -> None:
    """What lies in a block that is away is priced with the block there, or bringing it back would seem too dear."""
    problem = network({"b": [9.0], "b.1": [5.0, 1.0, 1.0, 1.0], "c": [1.0]}, {"b": ["b.1"]}, 3)
    least = {site.name: site.fewest for site in problem.sites}
    around = Around(problem, by_scores(problem), least)
    settled = around.settle([{"b": 0, "b.1": 4, "c": 1}])
    assert settled.counts == {"b": 1, "b.1": 1, "c": 1} and settled.loss == 3.0 and settled.proven


def test_a_block_stays_away_where_losses_say_so_and_scores_do_not() -> None:
    problem = network({"b": [5.0], "b.1": [2.0, 2.0, 2.0], "c": [1.0]}, {"b": ["b.1"]}, 3)
    losses = by_scores(problem) | {"b": np.array([0.1, 0.0]), "b.1": np.array([9.0, 6.0, 3.0, 0.0])}
    around = Around(problem, losses, {site.name: site.fewest for site in problem.sites})
    assert around.loss({"b": 0, "b.1": 1, "c": 1}) == 0.1
    assert around.loss({"b": 1, "b.1": 1, "c": 1}) == 6.0
    settled = around.settle([{"b": 0, "b.1": 1, "c": 1}])
    assert settled.counts["b"] == 0 and settled.loss == 0.1


problems = st.tuples(
    st.lists(st.tuples(st.booleans(), st.lists(st.integers(1, 6), max_size=3)), min_size=1, max_size=4),
    st.floats(0.3, 0.95),
    st.integers(0, 99),
)


@settings(max_examples=15, deadline=None)
@given(problems)
def test_plans_are_normal_and_the_knapsack_never_falls_behind_greedy(
    drawn: tuple[list[tuple[bool, list[int]]], float, int],
) -> None:
    groups, share, seed = drawn
    rng = np.random.default_rng(seed)
    scores: dict[str, Floats] = {"stem": rng.lognormal(0, 1, 4)}
    blocks = {}
    for i, (is_block, sizes) in enumerate(groups):
        names = [f"b{i}.{j}" for j in range(len(sizes))]
        scores |= {name: rng.lognormal(0, 1, n) for name, n in zip(names, sizes, strict=True)}
        if is_block:
            scores[f"b{i}"] = rng.lognormal(1, 1, 1)
            blocks[f"b{i}"] = names
    whole = network(scores, blocks, 0).price(Plan())["macs"]
    problem = network(scores, blocks, share * whole)
    if not problem.fits(problem.keep({site.name: site.fewest for site in problem.sites})):
        return
    plans = [chosen(one, problem) for one in (greedy(), knapsack(), uniform())]
    assert all(problem.fits(plan) and normal(problem, plan) for plan in plans)
    assert problem.lost(plans[1]) <= problem.lost(plans[0]) + 1e-9
    assert len({plan.key for plan in [plans[1], chosen(knapsack(), problem)]}) == 1


def test_what_is_measured_is_measured_of_blocks_too() -> None:
    """A block whose score says that it is nearly free is, as measured, the dearest of all."""
    scores = {"c": [1.0] * 6, "d": [1.1] * 6, "b": [0.1], "b.1": [1.0] * 6, "e": [0.2], "e.1": [1.0] * 6}
    problem = network(scores, {"b": ["b.1"], "e": ["e.1"]}, 18, minimise="error")
    losses = by_scores(problem) | {"b": np.array([50.0, 0.0])}
    asked = []

    def measured(plan: Plan) -> float:
        asked.append(counts(problem, plan))
        return 10 + total(problem, losses, plan)

    plan = Driver(hire=lambda: Here(measured)).run(knapsack(loss="measured"), problem)
    assert {"b": 0} in asked and {"e": 0} in asked
    assert counts(problem, plan).get("b", 1) == 1 and counts(problem, plan)["e"] == 0
    assert counts(problem, chosen(knapsack(loss="scores"), problem))["b"] == 0
