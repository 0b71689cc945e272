"""Allocators against brute force on small problems, and the promises every one of them makes."""

import itertools
import math

import numpy as np
import pytest
from scipy.special import erfinv

from penjing.allocators.driver import Driver
from penjing.allocators.greedy import greedy
from penjing.allocators.problem import Problem
from penjing.allocators.random import random
from penjing.allocators.simple import global_, threshold, uniform
from penjing.core.errors import Infeasible, PlanError
from penjing.core.plan import Plan
from penjing.core.registry import entries
from penjing.core.search import Bound
from penjing.core.sites import Site

BUDGETED = [uniform(), global_(), greedy(), random(trials=3)]


def site(name, size, step=1):
    return Site(name, "channels", size, (), np.arange(size), step=step)


def problem(sizes, unit_costs, limit, *, step=1, seed=0, scores=None):
    """A cost that is linear in the counts kept, so that brute force is easy."""
    sites = [site(f"s{i}", n, step) for i, n in enumerate(sizes)]
    rng = np.random.default_rng(seed)
    given = scores or {s.name: rng.random(s.size) + 0.01 for s in sites}

    def price(plan):
        kept = {s.name: s.size for s in sites} | {e.site: len(e.kept) for e in plan}
        return {"macs": float(sum(kept[s.name] * c for s, c in zip(sites, unit_costs, strict=True)))}

    return Problem("channels", sites, given, [Bound("macs", limit, "test")], price)


def chosen(allocator, p):
    return Driver().run(allocator, p)


def counts(p, plan):
    return {s.name: s.size for s in p.sites} | {e.site: len(e.kept) for e in plan}


@pytest.mark.parametrize(
    "allocator", [uniform(), global_(), greedy(), random(trials=3)], ids=lambda a: type(a).__name__
)
@pytest.mark.parametrize("shape", [[12], [16, 32, 64], [8] * 200])
@pytest.mark.parametrize("share", [0.35, 0.5, 0.9])
def test_every_allocator_meets_the_bound_and_uses_it(allocator, shape, share):
    costs = [1.0 + i % 3 for i in range(len(shape))]
    full = sum(n * c for n, c in zip(shape, costs, strict=True))
    p = problem(shape, costs, share * full)
    plan = chosen(allocator, p)
    spent = p.price(plan)["macs"]
    assert spent <= share * full
    assert spent > share * full - max(costs) - 1e-9, "the fill leaves no room for another unit"
    assert [e.key for e in [plan]] == [chosen(allocator, p).key], "deterministic"


@pytest.mark.parametrize(
    "allocator", [uniform(), global_(), greedy(), random(trials=3)], ids=lambda a: type(a).__name__
)
def test_counts_are_multiples_of_the_step_and_the_best_units_stay(allocator):
    p = problem([16, 48, 20], [1, 1, 1], 40, step=8)
    plan = chosen(allocator, p)
    for entry in plan:
        assert len(entry.kept) % 8 == 0
        scores = p.scores[entry.site]
        gone = np.setdiff1d(np.arange(entry.size), entry.kept)
        assert scores[entry.kept].min() >= scores[gone].max()


def test_greedy_equals_brute_force_where_units_cost_the_same():
    scores = {"s0": np.array([5.0, 4.0, 0.1, 0.2]), "s1": np.array([3.0, 2.9, 2.8, 0.3]), "s2": np.array([1.0, 0.9])}
    p = problem([4, 4, 2], [1, 1, 1], 6, scores=scores)
    plan = chosen(greedy(floor=0.0), p)
    lost = sum(scores[s].sum() for s in scores) - sum(scores[e.site][e.kept].sum() for e in plan)
    lost -= sum(scores[s.name].sum() for s in p.sites if s.name not in {e.site for e in plan})
    best = np.inf
    for kept in itertools.product(range(1, 5), range(1, 5), range(1, 3)):
        if sum(kept) <= 6:
            loss = sum(np.sort(scores[f"s{i}"])[: len(scores[f"s{i}"]) - k].sum() for i, k in enumerate(kept))
            best = min(best, loss)
    assert lost == pytest.approx(best)


def test_greedy_steps_over_a_stair_that_saves_nothing():
    stairs = site("s0", 32)

    def price(plan):
        kept = {"s0": 32} | {e.site: len(e.kept) for e in plan}
        return {"latency": float(-(-kept["s0"] // 16))}

    p = Problem("channels", [stairs], {"s0": np.arange(32.0)}, [Bound("latency", 1.0, "0.5x")], price)
    (entry,) = chosen(greedy(), p)
    assert len(entry.kept) == 16, "16 units cost as much as 1 to 15, so the fill gives them all back"


def test_global_takes_from_the_site_with_the_low_scores():
    scores = {"s0": np.full(10, 5.0) + np.arange(10) / 100, "s1": np.arange(10) / 10}
    p = problem([10, 10], [1, 1], 12, scores=scores)
    kept = counts(p, global_(floor=0.1)(p))
    assert kept["s0"] == 10 and kept["s1"] == 2


def test_threshold_keeps_scores_above_k_and_checks_the_budget():
    scores = {"s0": np.array([0.5, 3.5, 2.0, 4.0])}
    p = problem([4], [1], 2, scores=scores)
    (entry,) = threshold(k=3.0)(p)
    assert entry.kept.tolist() == [1, 3]
    with pytest.raises(Infeasible, match="lowest reachable 3"):
        threshold(k=1.0)(problem([4], [1], 2, scores=scores))


@pytest.mark.parametrize("share", [0.683, 0.8, 0.9])
def test_global_finds_the_one_threshold_that_reaches_a_share(share):
    """The k of the 3-sigma rule from a sparsity instead of the other way round."""
    rng = np.random.default_rng(0)
    scores = {f"s{i}": np.abs(rng.standard_normal(40_000)) for i in range(3)}
    sites = [Site(name, "weights", 40_000, (), np.arange(0)) for name in scores]

    def price(plan):
        return {"nonzero": float(sum(s.size for s in sites) - sum(e.size - len(e.kept) for e in plan))}

    plan = global_(floor=0.0)(Problem("weights", sites, scores, [Bound("nonzero", (1 - share) * 120_000, "")], price))
    gone = {e.site: np.setdiff1d(np.arange(e.size), e.kept) for e in plan}
    least = min(scores[e.site][e.kept].min() for e in plan)
    most = max(scores[name][units].max() for name, units in gone.items())
    assert most <= least == pytest.approx(math.sqrt(2) * float(erfinv(share)), abs=0.02)


@pytest.mark.parametrize(
    "allocator", [uniform(), global_(), greedy(), random(trials=3)], ids=lambda a: type(a).__name__
)
def test_what_cannot_be_met_is_refused_with_the_lowest_reachable_value(allocator):
    p = problem([16, 16], [1, 1], 3, step=8)
    with pytest.raises(Infeasible, match=r"macs test is 3, lowest reachable 16") as caught:
        chosen(allocator, p)
    assert caught.value.best == {"macs": 16.0}


@pytest.mark.parametrize("name", ["uniform", "global", "greedy"])
def test_without_a_budget_an_allocator_says_that_it_needs_one(name):
    p = Problem("channels", [site("a", 4)], {"a": np.ones(4)}, [], lambda plan: {})
    with pytest.raises(PlanError, match=f"{name!r} needs a budget"):
        chosen(entries("allocator")[name](), p)


def test_uniform_with_a_share_needs_no_budget():
    p = Problem("channels", [site("a", 8), site("b", 6)], {"a": np.arange(8.0), "b": np.ones(6)}, [], lambda plan: {})
    assert counts(p, uniform(keep=0.5)(p)) == {"a": 4, "b": 3}


def test_equal_scores_keep_the_order_of_the_site():
    p = problem([6], [1], 3, scores={"s0": np.ones(6)})
    (entry,) = uniform()(p)
    assert entry.kept.tolist() == [0, 1, 2]


def test_a_bound_that_already_holds_changes_nothing():
    p = problem([6, 6], [1, 1], 100)
    for allocator in (uniform(), global_(), greedy()):
        assert len(chosen(allocator, p)) == 0
    assert isinstance(chosen(greedy(), p), Plan)
