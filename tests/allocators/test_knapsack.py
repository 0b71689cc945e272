"""The knapsack on costs of two sites each, against brute force and greedy; and its losses by measuring."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.allocators.driver import Driver
from penjing.allocators.greedy import greedy
from penjing.allocators.knapsack import CHECKS, knapsack
from penjing.allocators.problem import Problem
from penjing.allocators.random import random
from penjing.allocators.sensitivity import by_scores, total
from penjing.core.errors import PlanError
from penjing.core.plan import Plan
from penjing.core.search import Bound, Trial
from penjing.core.sites import Site
from penjing.core.units import Floats
from penjing.workers import Here


def counts(problem: Problem, plan: Plan) -> dict[str, int]:
    return {site.name: site.size for site in problem.sites} | {entry.site: len(entry.kept) for entry in plan}


def chain(sizes: list[int], share: float, seed: int, tread: int = 1, minimise: str = "lost", step: int = 1) -> Problem:
    """Layers in a row: each costs the product of what it reads and writes, in steps of ``tread``."""
    rng = np.random.default_rng(seed)
    sites = [Site(f"s{i}", "channels", n, (), np.arange(n), step=step) for i, n in enumerate(sizes)]
    scores = {site.name: rng.lognormal(0, 1.5, site.size) for site in sites}
    areas = rng.lognormal(0, 0.7, len(sites) + 1)

    def price(plan: Plan) -> Mapping[str, float]:
        kept = {site.name: site.size for site in sites} | {entry.site: len(entry.kept) for entry in plan}
        widths = [3, *(math.ceil(n / tread) * tread for n in kept.values()), 10]
        return {"macs": float(sum(a * i * o for a, i, o in zip(areas, widths, widths[1:], strict=False)))}

    bound = Bound("macs", share * price(Plan())["macs"], f"{share}x")
    return Problem("channels", sites, scores, [bound], price, minimise=minimise)


def least_lost(problem: Problem) -> float:
    """The least score lost of all plans within the bounds."""
    ways = itertools.product(*(range(1, site.size + 1) for site in problem.sites))
    plans = (problem.keep(dict(zip((s.name for s in problem.sites), way, strict=True))) for way in ways)
    return min(problem.lost(plan) for plan in plans if problem.fits(plan))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(2, 24), min_size=1, max_size=6),
    st.floats(0.2, 0.95),
    st.integers(0, 99),
    st.sampled_from([1, 4]),
)
def test_it_keeps_the_bound_and_never_falls_behind_greedy(
    sizes: list[int], share: float, seed: int, tread: int
) -> None:
    problem = chain(sizes, share, seed, tread)
    smallest = problem.keep({site.name: site.fewest for site in problem.sites})
    if problem.fits(smallest):
        plan = Driver().run(knapsack(), problem)
        assert problem.fits(plan)
        assert problem.lost(plan) <= problem.lost(Driver().run(greedy(), problem)) + 1e-9


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tread", [1, 4])
def test_it_comes_near_what_brute_force_finds(seed: int, tread: int) -> None:
    problem = chain([8, 10, 12], 0.5, seed, tread)
    lost = problem.lost(Driver().run(knapsack(floor=0.0), problem))
    assert least_lost(problem) <= lost + 1e-9 <= 1.05 * least_lost(problem) + 1e-9


def test_it_tells_the_gap() -> None:
    driver = Driver()
    driver.run(knapsack(), chain([16, 32, 16], 0.5, 0))
    assert driver.said.startswith("knapsack solved to a gap of ") and driver.said.endswith("losses by scores")


class Hidden:
    """Measures what plans lose by losses that the allocator does not know: its own scores for each site's units."""

    def __init__(self, problem: Problem, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.problem, self.asked = problem, 0
        weights = rng.lognormal(0, 2, len(problem.sites))
        self.losses: dict[str, Floats] = {
            site.name: w * by_scores(problem)[site.name] for site, w in zip(problem.sites, weights, strict=True)
        }

    def __call__(self, plan: Plan) -> float:
        self.asked += 1
        return 10 + total(self.problem, self.losses, plan)

    def search(self, allocator: knapsack) -> tuple[Plan, str]:
        driver = Driver(hire=lambda: Here(self))
        return driver.run(allocator, self.problem), driver.said


def test_what_is_measured_corrects_scores_of_which_each_site_has_another_unit() -> None:
    hidden = Hidden(chain([12] * 5, 0.4, 3, minimise="error"), 5)
    by_score, _ = hidden.search(knapsack(loss="scores"))
    assert hidden.asked == 0
    plan, said = hidden.search(knapsack(loss="measured"))
    assert hidden(plan) < hidden(by_score) and "losses by measured (rank correlation over 8 plans" in said
    best, said = hidden.search(knapsack())
    assert hidden(best) <= hidden(plan) and "losses by " in said and "scores" in said
    assert hidden.problem.fits(best)


@pytest.mark.parametrize("trials", [3, 20, 30])
def test_no_more_plans_are_measured_than_asked_for(trials: int) -> None:
    hidden = Hidden(chain([12] * 5, 0.4, 3, minimise="error"), 5)
    plan, said = hidden.search(knapsack(trials=trials))
    assert hidden.asked <= trials and hidden.problem.fits(plan)
    assert ("by scores" in said) == (hidden.asked == 0)


def test_a_site_that_cannot_shrink_is_left_alone() -> None:
    hidden = Hidden(chain([3, 16, 16], 0.6, 1, minimise="error", step=4), 5)
    plan, _ = hidden.search(knapsack())
    assert counts(hidden.problem, plan)["s0"] == 3 and hidden.problem.fits(plan) and hidden.asked > 0


def test_a_search_is_the_same_each_time() -> None:
    plans = [Hidden(chain([12] * 5, 0.4, 3, minimise="error"), 5).search(knapsack())[0].key for _ in range(2)]
    assert plans[0] == plans[1]


@pytest.mark.parametrize(
    "options",
    [{"loss": "guess"}, {"floor": 1.0}, {"trials": -1}, {"gap": -0.1}, {"gap": math.nan}, {"seconds": math.inf}],
)
def test_an_option_that_cannot_be_is_named(options: dict[str, object]) -> None:
    with pytest.raises(PlanError, match=rf"^knapsack: {next(iter(options))} "):
        knapsack(**options)  # type: ignore[arg-type]


def test_plans_that_losses_are_to_foretell_lie_around_the_one_that_is_sought() -> None:
    """Plans of random widths lose far more than any answer, and tell nothing about which answer is best."""
    hidden = Hidden(chain([20] * 4, 0.4, 3, minimise="error"), 5)
    asked: list[list[Plan]] = []

    def watched() -> Iterator[list[Plan]]:
        search = knapsack()(hidden.problem)
        assert not isinstance(search, Plan)
        plans = next(search)
        with suppress(StopIteration):
            while True:
                asked.append(list(plans))
                yield plans
                plans = search.send([Trial(plan, {"error": hidden(plan)}) for plan in plans])

    list(watched())
    checks = next(plans for plans in asked if len(plans) == CHECKS)
    assert all(hidden.problem.fits(plan) for plan in checks) and len({plan.key for plan in checks}) > CHECKS // 2
    drawn = [random().fitted(hidden.problem, np.random.default_rng(i).standard_normal(4)) for i in range(CHECKS)]
    lost, others = (np.median([hidden(plan) - 10 for plan in plans]) for plans in (checks, drawn))
    assert lost < 0.8 * others
