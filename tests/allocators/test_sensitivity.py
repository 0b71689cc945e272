"""Curves through what was measured, and how well they and scores foretell whole plans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.allocators.problem import Problem
from penjing.allocators.sensitivity import by_scores, curve, foretell, matched, points, total
from penjing.core.search import Trial
from penjing.core.sites import Site


def site(name: str = "s", size: int = 64, step: int = 4) -> Site:
    return Site(name, "channels", size, (), np.arange(size), step=step)


def test_scores_lose_what_the_worst_units_are_worth() -> None:
    problem = Problem("channels", [site(size=3, step=1)], {"s": np.array([1.0, 5.0, 2.0])}, [], lambda _: {})
    assert by_scores(problem)["s"].tolist() == [8.0, 3.0, 1.0, 0.0]
    assert total(problem, by_scores(problem), problem.keep({"s": 1})) == problem.lost(problem.keep({"s": 1})) == 3.0


@given(st.integers(1, 300), st.sampled_from([1, 4, 16]), st.floats(0, 0.9), st.integers(1, 4))
def test_points_are_allowed_counts_from_the_least_up(size: int, step: int, floor: float, count: int) -> None:
    one = site(size=size, step=min(step, size))
    least = max(one.fewest, one.allowed(floor * size))
    found = points(one, least, count)
    assert len(found) <= count and found == sorted(set(found))
    assert all(n == one.allowed(n) and least <= n < size for n in found)
    assert (least in found) == (least < size)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(2, 40),
    st.data(),
    st.lists(st.floats(-5, 20, allow_subnormal=False), min_size=1, max_size=4),
    st.booleans(),
)
def test_a_curve_never_falls_as_more_goes_and_the_whole_loses_nothing(
    size: int, data: st.DataObject, measured: list[float], flat: bool
) -> None:
    scores = np.zeros(size) if flat else np.random.default_rng(size).random(size)
    lost = np.append(np.cumsum(np.sort(scores))[::-1], 0.0)
    several = min(len(measured), size - 1)
    kept = data.draw(st.permutations(range(1, size)))[:several]
    found = curve(lost, kept, measured[:several])
    assert found.shape == (size + 1,) and np.isfinite(found).all()
    assert found[-1] == 0 and (np.diff(found) <= 1e-9).all()


def test_a_curve_goes_through_what_was_measured_and_takes_its_shape_from_the_scores() -> None:
    lost = np.append(np.cumsum(np.linspace(0.1, 4, 20))[::-1], 0.0)
    found = curve(lost, [4, 16, 10], [9.0, 1.0, 3.0])
    assert found[[4, 10, 16]] == pytest.approx([9.0, 3.0, 1.0])
    one = curve(lost, [10], [3.0])
    removed, share = np.arange(20, -1, -1) / 20, lost / lost[0]
    assert one == pytest.approx(3.0 * (removed + share) / (removed + share)[10])


def test_a_cut_that_seems_to_help_loses_nothing() -> None:
    lost = np.arange(8, -1.0, -1)
    assert curve(lost, [2, 4, 6], [3.0, -1.0, -2.0])[4:].tolist() == [0.0] * 5
    pooled = curve(lost, [2, 4], [1.0, 3.0])  # noise: fewer units cannot lose less
    assert pooled[2] == pooled[4] == pytest.approx(2.0)


def test_a_site_that_was_not_measured_has_no_loss() -> None:
    """One that cannot shrink in its step has nothing to measure, and one option."""
    assert curve(np.array([3.0, 1.0, 0.0]), [], []).tolist() == [0.0, 0.0, 0.0]


def foretold(unit: float, noise: float = 0.0) -> tuple[Problem, list[Trial], list[float]]:
    sites = [site(f"s{i}", 16, 1) for i in range(6)]
    rng = np.random.default_rng(0)
    problem = Problem("channels", sites, {s.name: rng.random(16) for s in sites}, [], lambda _: {}, minimise="error")
    losses = by_scores(problem)
    plans = [problem.keep({s.name: int(rng.integers(1, 17)) for s in sites}) for _ in range(8)]
    sums = [total(problem, losses, plan) for plan in plans]
    values = [5 + unit * value + noise * float(rng.standard_normal()) for value in sums]
    return problem, [Trial(plan, {"error": value}) for plan, value in zip(plans, values, strict=True)], sums


def test_losses_that_are_right_but_for_their_unit_foretell_everything() -> None:
    problem, trials, sums = foretold(unit=0.25)
    (best,) = foretell(problem, {"scores": by_scores(problem)}, trials, whole=5.0)
    assert best.rank == pytest.approx(1.0) and best.explained == pytest.approx(1.0)
    assert total(problem, best.losses, trials[0].plan) == pytest.approx(0.25 * sums[0])


def test_the_better_foretelling_comes_first_and_the_mean_is_a_third() -> None:
    problem, trials, _ = foretold(unit=1.0, noise=0.01)
    right = by_scores(problem)
    wrong = {name: np.append(np.random.default_rng(1).permutation(lost[:-1]), 0.0) for name, lost in right.items()}
    told = foretell(problem, {"scores": wrong, "measured": right}, trials, whole=5.0)
    assert {one.name for one in told} == {"scores", "measured", "both"}
    assert told[0].name == "measured" and told[0].rank > 0.9 > told[-1].rank and told[-1].name == "scores"


def test_what_tells_nothing_has_no_rank() -> None:
    problem, trials, _ = foretold(unit=1.0)
    zero = {s.name: np.zeros(17) for s in problem.sites}
    assert [(one.rank, one.explained <= 0) for one in foretell(problem, {"scores": zero}, trials, 5.0)] == [(0.0, True)]
    even = [Trial(trial.plan, {"error": 7.0}) for trial in trials]
    assert foretell(problem, {"scores": by_scores(problem)}, even, 5.0)[0].explained == 0.0


def two_families() -> tuple[Problem, list[Site]]:
    sites = [replace(site(f"{family}{i}", 8, 1), rewrite=family) for family in ("channels", "lsq") for i in range(3)]
    rng = np.random.default_rng(0)
    return Problem("both", sites, {s.name: rng.random(8) for s in sites}, [], lambda _: {}, minimise="kl"), sites


def test_scores_of_each_rewrite_come_into_the_unit_that_single_sites_were_measured_in() -> None:
    problem, sites = two_families()
    unit, losses = {"channels": 0.01, "lsq": 40.0}, by_scores(problem)
    alone = [(s, n) for s in sites for n in (2, 5)]
    found = matched(problem, losses, alone, [unit[s.rewrite] * losses[s.name][n] for s, n in alone])
    assert all(found[s.name] == pytest.approx(unit[s.rewrite] * losses[s.name]) for s in sites)


def test_whole_plans_tell_that_a_rewrite_costs_more_beside_the_others_than_alone() -> None:
    problem, sites = two_families()
    losses, rng = by_scores(problem), np.random.default_rng(1)
    plans = [problem.keep({s.name: int(rng.integers(1, 9)) for s in sites}) for _ in range(8)]
    values = [total(problem, losses, plan, "channels") + 3 * total(problem, losses, plan, "lsq") for plan in plans]
    trials = [Trial(plan, {"kl": value}) for plan, value in zip(plans, values, strict=True)]
    (told,) = foretell(problem, {"measured": losses}, trials, whole=0.0)
    bits = told.losses["lsq0"][0] / losses["lsq0"][0]
    channels = told.losses["channels0"][0] / losses["channels0"][0]
    together = replace(problem, sites=[replace(s, rewrite="") for s in sites])
    (same,) = foretell(together, {"measured": losses}, trials, whole=0.0)
    assert bits > 1.25 * channels and told.explained > same.explained
    one = total(problem, losses, plans[0])
    assert one == pytest.approx(sum(total(problem, losses, plans[0], name) for name in ("channels", "lsq")))
