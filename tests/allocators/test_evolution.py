"""Evolution on losses whose best is known: its window, its operators, and what it beats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.allocators.evolution import SCALES, crossed, evolution
from penjing.allocators.random import random
from penjing.core.errors import Infeasible, PlanError

from .searching import bowl, played, problem

SMALL = {"population": 20, "iterations": 4, "parents": 5, "mutations": 10, "crossovers": 10}


def test_it_beats_random_search_at_as_many_evaluations() -> None:
    ours, chance = [], []
    for seed in range(5):
        asked = problem(13, 40, share=0.35, seed=seed)
        loss = bowl(np.random.default_rng(seed).integers(4, 41, 13), 30)
        chosen, batches, _ = played(evolution(**SMALL), asked, loss)
        ours.append(loss(chosen))
        chance.append(loss(played(random(trials=sum(map(len, batches))), asked, loss)[0]))
    assert np.mean(ours) < 0.9 * np.mean(chance)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_every_candidate_lies_within_the_window_and_is_new(share: float) -> None:
    asked, allocator = problem(8, 100, share=share), evolution(**SMALL)
    chosen, batches, losses = played(allocator, asked, loss := bowl(np.full(8, 50), 100))
    everyone = [tuple(counts.tolist()) for batch in batches for counts in batch]
    assert len(set(everyone)) == len(everyone) == allocator.trials == 100
    assert loss(chosen) == min(map(min, losses))
    for counts in everyone:
        plan = asked.keep(dict(zip((site.name for site in asked.sites), counts, strict=True)))
        assert -0.05 <= asked.excess(plan) <= 0


@pytest.mark.parametrize(
    ("share", "tread", "step"), [(0.02, 1, 1), (0.3, 16, 1), (0.5, 1, 16), (1.0, 1, 1), (3.0, 1, 1)]
)
def test_budgets_of_any_kind_come_to_an_end(share: float, tread: int, step: int) -> None:
    """Smaller than the smallest scale, in treads that the window falls between, in coarse steps, and none at all."""
    asked = problem(4, 64, share=share, tread=tread, step=step)
    chosen, batches, _ = played(evolution(**SMALL), asked, bowl(np.full(4, 64), 60))
    assert all((counts % step == 0).all() for batch in batches for counts in batch)
    for batch in batches:
        for counts in batch:
            plan = asked.keep({site.name: int(n) for site, n in zip(asked.sites, counts, strict=True)})
            assert asked.fits(plan)
    if share >= 1:
        assert chosen.tolist() == [64] * 4
    else:
        assert len(batches) > 1, "there are children"


def test_a_mutation_shifts_one_site_in_ten_to_any_other_scale() -> None:
    asked, rng = problem(50, 100), np.random.default_rng(0)
    parent = tuple([55] * 50)
    children = np.array([evolution().mutant(asked, rng, [parent]) for _ in range(200)])
    assert (children != 55).mean() == pytest.approx(0.1, abs=0.02)
    reached = {round(n / 100, 2) for n in children.ravel().tolist()} - {0.55}
    assert reached == {round(float(scale), 2) for scale in SCALES} - {0.55}


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 99), st.data())
def test_a_crossover_takes_each_site_from_either_parent(one: list[int], seed: int, data: st.DataObject) -> None:
    other = data.draw(st.lists(st.integers(1, 9), min_size=len(one), max_size=len(one)))
    rng = np.random.default_rng(seed)
    child = crossed(rng, [tuple(one), tuple(other)])
    assert all(c in pair for c, pair in zip(child, zip(one, other, strict=True), strict=True))
    assert crossed(rng, [tuple(one)]) == tuple(one)


def test_a_replay_asks_the_same() -> None:
    loss = bowl(np.array([30, 80, 10]), 70)
    asked = [problem(3, 100, share=0.5, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (
        [b.tolist() for batch in played(evolution(**SMALL), p, loss)[1] for b in batch] for p in asked
    )
    assert first == again != other


def test_it_needs_a_budget_that_can_be_reached() -> None:
    with pytest.raises(PlanError, match=r"'evolution' needs a budget"):
        played(evolution(), problem(3), lambda counts: 0.0)
    with pytest.raises(Infeasible):
        played(evolution(), problem(3, share=1e-6), lambda counts: 0.0)


@pytest.mark.parametrize(
    "options",
    [{"population": 0}, {"iterations": -1}, {"parents": 0}, {"mutations": -1}, {"chance": 0.0}, {"slack": 0.0}],
    ids=str,
)
def test_what_cannot_be_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(PlanError, match=f"evolution: {next(iter(options))} "):
        evolution(**options)
    with pytest.raises(PlanError, match=r"do not fit in a population of 49"):
        evolution(population=49)
