"""The bee colony on losses whose best is known: its bookkeeping, its budget, and what it beats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.allocators.abcpruner import _settle, _Source, abcpruner
from penjing.core.errors import Infeasible, PlanError
from penjing.core.plan import Plan
from penjing.core.search import Trial

from .searching import bowl, counts_of, played, problem


def test_it_beats_random_codes_at_as_many_evaluations() -> None:
    ours, chance = [], []
    for seed in range(16):
        rng = np.random.default_rng(seed)
        loss = bowl(rng.integers(1, 9, 13), 7)
        chosen, batches, _ = played(abcpruner(most=0.8), problem(13, seed=seed), loss)
        ours.append(loss(chosen))
        chance.append(min(loss(code) for code in rng.integers(1, 9, (sum(map(len, batches)), 13))))
    assert np.mean(ours) < 0.95 * np.mean(chance)
    assert np.mean(ours) < 0.07


def test_it_takes_the_best_that_was_measured() -> None:
    loss = bowl(np.array([7, 2, 5]), 7)
    chosen, batches, losses = played(abcpruner(cycles=3, most=0.9), problem(3), loss)
    assert loss(chosen) == min(min(lost) for lost in losses)
    assert all(1 <= count <= 9 for batch in batches for counts in batch for count in counts), "codes and the cap"
    assert max(counts.max() for batch in batches for counts in batch) == 9


@pytest.mark.parametrize(("limit", "expected"), [(1, 219), (5, 217), (1000, 210)])
def test_how_many_it_evaluates(limit: int, expected: int) -> None:
    """Where nothing is ever better, a code is moved in vain twice a cycle: five times are reached after three."""
    allocator = abcpruner(limit=limit, most=0.9)
    _, batches, _ = played(allocator, problem(4), lambda counts: 1.0)
    assert sum(map(len, batches)) == expected <= allocator.trials == 219
    assert len(batches) == 20, "the bees of a phase fly together"
    assert [len(batch) for batch in batches[:2]] == [20, 10]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 10)), max_size=40))
def test_a_source_never_gets_worse_and_counts_what_failed(moves: list[tuple[int, float]]) -> None:
    asked = problem(2)
    sources = [_Source(np.array([i]), Trial(Plan(), {"lost": 5.0})) for i in range(4)]
    expected, failures = [5.0] * 4, [0] * 4
    for i, value in moves:
        better = value < expected[i]
        expected[i], failures[i] = (value, 0) if better else (expected[i], failures[i] + 1)
    _settle(
        asked,
        [(sources[i], np.array([100 + k])) for k, (i, _) in enumerate(moves)],
        [Trial(Plan(), {"lost": v}) for _, v in moves],
    )
    assert [source.trial["lost"] for source in sources if source.trial] == expected
    assert [source.failures for source in sources] == failures


def test_moves_reach_every_site_and_lean_to_no_side() -> None:
    """The released code leaves out the last layer, and truncates, which makes codes fall."""
    rng = np.random.default_rng(0)
    sources = [_Source(np.full(5, 5)), _Source(np.full(5, 6))]
    moved = np.array([code for _, code in abcpruner()._moves(sources, [0] * 2000, rng)])
    assert set(moved.ravel().tolist()) == {4, 5, 6}
    assert ((moved != 5).mean(0) > 0.1).all()
    assert abs(moved.mean() - 5) < 0.02
    assert ((moved != 5).sum(1) <= 2).all()


def test_onlookers_prefer_what_is_better() -> None:
    rng = np.random.default_rng(0)
    sources = [_Source(np.array([1]), Trial(Plan(), {"lost": value})) for value in (3.0, 1.0, 2.0)]
    chosen = np.concatenate([abcpruner()._onlookers(problem(1), sources, rng) for _ in range(500)])
    rates = np.bincount(chosen) / len(chosen)
    assert rates[1] > rates[2] > rates[0] > 0.02


def test_a_code_within_the_budget_is_taken_as_it_is_and_one_beyond_it_just_keeps_it() -> None:
    asked, allocator = problem(4, size=100, share=0.3), abcpruner()
    small = counts_of(asked.sites, allocator.plan(asked, np.array([1, 2, 1, 3])))
    assert small == [10, 20, 10, 30]
    plan = allocator.plan(asked, np.array([10, 5, 10, 5]))
    large = counts_of(asked.sites, plan)
    assert asked.fits(plan) and asked.excess(plan) > -0.02
    assert np.allclose(np.array(large) / large[0], [1, 0.5, 1, 0.5], atol=0.06), "its proportions stay"
    assert len(allocator.plan(problem(4), np.full(4, 10))) == 0, "ten tenths are the whole network"


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_every_candidate_keeps_the_budget(share: float) -> None:
    asked = problem(5, size=64, share=share, step=2)
    _, batches, _ = played(abcpruner(cycles=2), asked, bowl(np.full(5, 30), 60))
    limit = asked.bounds[0].limit
    for batch in batches:
        for counts in batch:
            plan = asked.keep({site.name: int(n) for site, n in zip(asked.sites, counts, strict=True)})
            assert asked.price(plan)["macs"] <= limit and (counts % 2 == 0).all()


def test_a_replay_asks_the_same() -> None:
    loss = bowl(np.array([3, 8, 1]), 7)
    asked = [problem(3, share=0.5, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (
        [b.tolist() for batch in played(abcpruner(cycles=3), p, loss)[1] for b in batch] for p in asked
    )
    assert first == again != other


def test_it_needs_a_budget_or_a_cap() -> None:
    with pytest.raises(PlanError, match=r"'abcpruner' needs a budget"):
        played(abcpruner(), problem(3), lambda counts: 0.0)
    with pytest.raises(Infeasible):
        played(abcpruner(), problem(3, share=1e-6), lambda counts: 0.0)


@pytest.mark.parametrize(
    "options", [{"sources": 1}, {"limit": 0}, {"changed": 0}, {"cycles": 0}, {"most": 0.05}, {"most": 1.1}], ids=str
)
def test_what_cannot_be_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(PlanError, match=f"abcpruner: {next(iter(options))} "):
        abcpruner(**options)
