"""Greedy reaches every budget that can be reached, whatever the costs look like."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.allocators.driver import Driver
from penjing.allocators.greedy import greedy
from penjing.allocators.problem import Problem
from penjing.core.plan import Plan
from penjing.core.registry import build
from penjing.core.search import Bound
from penjing.core.sites import Site


def problem(sizes, prices, shares, rng):
    """Costs that are sums over some sites, and peaks over pairs of them."""
    sites = [Site(f"s{i}", "channels", n, (), np.arange(n), step=s) for i, (n, s) in enumerate(sizes)]
    scores = {site.name: rng.random(site.size) for site in sites}

    def price(plan):
        counts = {site.name: site.size for site in sites} | {e.site: len(e.kept) for e in plan}
        values = [counts[site.name] for site in sites]
        found = {}
        for name, (kind, members) in prices.items():
            chosen = [values[m % len(values)] for m in members]
            found[name] = float(sum(chosen) if kind == "sum" else max(chosen))
        return found

    whole = price([])
    bounds = [Bound(name, whole[name] * share, f"{share}x") for name, share in zip(prices, shares, strict=False)]
    return Problem("channels", sites, scores, bounds, price)


sizes = st.lists(st.tuples(st.integers(2, 24), st.sampled_from([1, 2, 4])), min_size=1, max_size=5)
prices = st.dictionaries(
    st.sampled_from("abc"),
    st.tuples(st.sampled_from(["sum", "max"]), st.lists(st.integers(0, 4), min_size=1, max_size=4)),
    min_size=1,
    max_size=3,
)


@settings(max_examples=200, deadline=None)
@given(sizes, prices, st.lists(st.floats(0.1, 0.95), min_size=3, max_size=3), st.integers(0, 9))
def test_greedy_meets_what_the_smallest_plan_meets(sizes, prices, shares, seed):
    one = problem(sizes, prices, shares, np.random.default_rng(seed))
    smallest = one.keep({site.name: site.fewest for site in one.sites})
    if one.fits(smallest):
        assert one.fits(Driver().run(greedy(), one))


def test_two_bounds_on_different_sites_are_both_met():
    one = problem([(16, 1), (16, 1)], {"a": ("sum", [0]), "b": ("sum", [1])}, [0.5, 0.25], np.random.default_rng(0))
    counts = {entry.site: len(entry.kept) for entry in Driver().run(greedy(), one)}
    assert counts == {"s0": 8, "s1": 4}


def test_single_moves_do_not_empty_the_only_site_that_saves_alone():
    """A stream with two branches in turn: the branches make their peaks together, so only the stream saves alone."""
    sites = [Site(name, "channels", 32, (), np.arange(32)) for name in ("stream", "one", "two")]

    def price(plan):
        n = {site.name: site.size for site in sites} | {e.site: len(e.kept) for e in plan}
        return {"memory": float(max(3 * n["stream"], n["stream"] + 2 * n["one"], n["stream"] + 2 * n["two"]))}

    bounds = [Bound("memory", 57.6, "0.6x")]
    one = Problem("channels", sites, {site.name: np.ones(32) for site in sites}, bounds, price)
    counts = {entry.site: len(entry.kept) for entry in Driver().run(greedy(), one)}
    assert sum(counts.get(site.name, 32) for site in sites) >= 57, "as much as 19 of each"


def test_a_peak_of_two_sites_comes_down_though_neither_saves_alone():
    one = problem([(16, 1), (16, 1)], {"a": ("max", [0, 1])}, [0.5], np.random.default_rng(0))
    counts = {entry.site: len(entry.kept) for entry in Driver().run(greedy(), one)}
    assert counts == {"s0": 8, "s1": 8}


def test_a_gap_between_the_whole_and_what_pays_is_leapt() -> None:
    """Just below the gap little is saved for much; far below, more for hardly more."""
    sites = [Site(name, "ranks", 64, (), np.arange(64), most=most) for name, most in (("gap", 32), ("plain", 0))]
    scores = {"gap": np.r_[np.full(8, 100.0), np.full(56, 0.1)], "plain": np.full(64, 1.0)}

    def price(plan: Plan) -> dict[str, float]:
        kept = {site.name: site.size for site in sites} | {entry.site: len(entry.kept) for entry in plan}
        return {"macs": float(min(2 * kept["gap"], 65) + kept["plain"])}

    plan = Driver().run(build("allocator", "greedy"), Problem("svd", sites, scores, [Bound("macs", 80.0, "80")], price))
    assert {entry.site: len(entry.kept) for entry in plan} == {"gap": 8}
