"""Whatever is acted, an episode ends within the budget and keeps the least of every site."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.allocators.problem import Problem
from penjing.allocators.walk import FEATURES, Walk
from penjing.core.errors import Infeasible
from penjing.core.plan import Plan
from penjing.core.search import Bound
from penjing.core.sites import Site


def chain(sizes: list[int], shares: Mapping[str, float], step: int = 1, tread: int = 1) -> Problem:
    """Layers in a row, each of which costs the product of what it reads and writes; the latency comes in treads."""
    sites = [Site(f"s{i}", "channels", n, (), np.arange(n), step=step) for i, n in enumerate(sizes)]

    def price(plan: Plan) -> Mapping[str, float]:
        kept = {site.name: site.size for site in sites} | {entry.site: len(entry.kept) for entry in plan}
        widths = [3, *kept.values(), 10]
        treads = [math.ceil(n / tread) * tread for n in widths]
        return {
            "macs": float(sum((i % 3 + 1) * a * b for i, (a, b) in enumerate(pairwise(widths)))),
            "params": float(sum(a * b for a, b in pairwise(widths))),
            "latency": float(sum(a * b for a, b in pairwise(treads))),
            "memory": float(max(a + b for a, b in pairwise(widths))),
        }

    whole = price(Plan())
    bounds = [Bound(cost, share * whole[cost], f"{share}x") for cost, share in shares.items()]
    scores = {site.name: np.linspace(2, 1, site.size) for site in sites}
    return Problem("channels", sites, scores, bounds, price)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(4, 40), min_size=1, max_size=5),
    st.dictionaries(st.sampled_from(["macs", "params", "latency", "memory"]), st.floats(0.3, 0.95), min_size=1),
    st.sampled_from([1, 4]),
    st.sampled_from([1, 8]),
    st.sampled_from([0.0, 0.1, 0.6]),
    st.integers(0, 99),
)
def test_any_actions_end_within_any_budget(
    sizes: list[int], shares: dict[str, float], step: int, tread: int, floor: float, seed: int
) -> None:
    problem = chain(sizes, shares, step, tread)
    rng = np.random.default_rng(seed)
    try:
        walk = Walk(problem, floor)
    except Infeasible:
        assert not problem.fits(problem.keep({site.name: site.fewest for site in problem.sites}))
        return
    for _ in range(20):
        episode = walk.decide(lambda _: float(rng.random()))
        assert problem.fits(problem.keep(episode.counts))
        assert all(walk.least[s.name] <= episode.counts[s.name] <= s.size for s in problem.sites)
        assert all(episode.counts[s.name] == s.allowed(episode.counts[s.name]) for s in problem.sites)
        assert episode.states.shape == (len(sizes), FEATURES)
        assert episode.states.min() >= 0 and episode.states.max() <= 1


def test_thousands_of_actions_on_weights_never_exceed_their_density() -> None:
    """The share of the weights that stays, the least of each layer, and nothing lost to rounding."""
    sizes = [432, 4608, 9216, 1000, 36864]
    sites = [Site(f"w{i}", "weights", n, (), np.arange(0)) for i, n in enumerate(sizes)]

    def price(plan: Plan) -> Mapping[str, float]:
        kept = {site.name: site.size for site in sites} | {entry.site: len(entry.kept) for entry in plan}
        return {"nonzero": float(sum(kept.values()))}

    bound = Bound("nonzero", 0.2 * sum(sizes), "0.2x")
    problem = Problem("weights", sites, {s.name: np.ones(s.size) for s in sites}, [bound], price)
    walk, rng = Walk(problem, 0.05), np.random.default_rng(0)
    for _ in range(600):
        episode = walk.decide(lambda _: float(rng.random()))
        left = sum(episode.counts.values())
        assert (1 - 1e-3) * bound.limit < left <= bound.limit
        assert all(episode.counts[s.name] >= int(0.05 * s.size) for s in sites)


@pytest.mark.parametrize("tread", [1, 8])
def test_the_wall_is_the_most_that_leaves_the_others_their_least(tread: int) -> None:
    problem = chain([40, 24, 32], {"latency": 0.2, "memory": 0.5}, tread=tread)
    walk = Walk(problem)
    counts = dict(walk.least)
    for site in problem.sites:
        within = [n for n in range(1, site.size + 1) if problem.fits(problem.keep({**counts, site.name: n}))]
        assert max(within) < site.size, "there is a wall"
        assert walk._walled(counts, site, 1.0) == max(within)
        counts[site.name] = walk._walled(counts, site, 0.7 * max(within) / site.size)
        assert counts[site.name] == site.allowed(0.7 * max(within) + 0.5)


def test_actions_are_told_as_they_were_carried_out() -> None:
    """Rounded, walled and spent; a learner that is told what it wanted learns what never happened."""
    problem = chain([40, 24, 32], {"macs": 0.3}, step=4)
    walk = Walk(problem, 0.1)
    episode = walk.decide(lambda _: 0.97)
    assert episode.actions == [episode.counts[s.name] / s.size for s in problem.sites]
    assert episode.states[1:, -1].tolist() == pytest.approx(episode.actions[:-1])
    again = iter(episode.actions)
    assert walk.decide(lambda _: next(again)).counts == episode.counts


def test_states_tell_what_is_saved_and_what_can_be_yet() -> None:
    problem = chain([10, 10], {"params": 0.5})
    episode = Walk(problem).decide(lambda _: 0.5)
    whole, least = 3 * 10 + 100 + 100, 3 + 1 + 10
    first = episode.counts["s0"]
    now, then = 3 * first + 10 * first + 100, 3 * first + first + 10
    assert episode.states[0, 4:6].tolist() == pytest.approx([0, (whole - least) / whole])
    assert episode.states[1, 4:6].tolist() == pytest.approx([(whole - now) / whole, (now - then) / whole])


def test_a_floor_is_given_up_where_the_budget_leaves_no_room() -> None:
    problem = chain([20, 20], {"macs": 0.2})
    assert Walk(problem, 0.2).least == {"s0": 4, "s1": 4}
    assert Walk(problem, 0.9).least == {"s0": 1, "s1": 1}


def test_what_nothing_reaches_is_refused() -> None:
    with pytest.raises(Infeasible, match=r"macs 1e-06x is .*, lowest reachable"):
        Walk(chain([20, 20], {"macs": 1e-6}))
