"""The surgeon's closed forms, against brute force."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from penjing.training.least_squares import damped, solve
from penjing.training.surgeon import Pattern, choose, removal


def problem(rows: int, columns: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return weights and a Hessian whose columns are correlated."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4 * columns, columns, generator=generator, dtype=torch.float64)
    x = x @ torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64), x.T @ x / len(x)


def refitted(w: Tensor, hessian: Tensor, stays: Tensor) -> Tensor:
    """Return the best weights of one row that are zero elsewhere, from the normal equations."""
    best = torch.zeros_like(w)
    best[stays] = torch.linalg.solve(hessian[stays][:, stays], hessian[stays] @ w)
    return best


def error(w: Tensor, hessian: Tensor, mask: Tensor) -> float:
    """Return what masks cost once the rest is refitted, over all rows."""
    rows = ((row, refitted(row, hessian, stays)) for row, stays in zip(w, mask, strict=True))
    return sum(float((row - best) @ hessian @ (row - best)) for row, best in rows)


def test_each_removal_costs_what_least_squares_says_and_is_the_cheapest() -> None:
    w, hessian = problem(1, 6)
    found = removal(w, hessian)
    stays, before = torch.ones(6, dtype=torch.bool), 0.0
    for q, loss in zip(found.columns[0].tolist(), found.losses[0].tolist(), strict=True):
        costs = {}
        for other in stays.nonzero()[:, 0].tolist():
            without = stays.clone()
            without[other] = False
            costs[other] = error(w, hessian, without[None]) - before
        assert q == min(costs, key=costs.__getitem__)
        assert loss == pytest.approx(costs[q], rel=1e-8)
        before, stays[q] = before + costs[q], False
    assert before == pytest.approx(float(w[0] @ hessian @ w[0]))


def test_kept_weights_solved_at_once_are_where_the_updates_end() -> None:
    """The ridge pulls to the dense weights, and what is then removed is charged for that too."""
    w, hessian = problem(3, 6)
    cross = hessian @ problem(3, 6, seed=1)[0].T
    best = solve(hessian[None], cross[None], w.T[None], 0.1)[0]
    held = damped(hessian[None], 0.1)
    mask = choose(best[None], held, torch.ones(1, 3).double(), 9, exact=6)[0]
    after = solve(hessian[None], cross[None], w.T[None] * mask, 0.1)[0]
    for row in range(3):
        assert torch.allclose(after[:, row], refitted(best[:, row], held[0], mask[:, row]))


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), share=st.floats(0.1, 0.9))
def test_it_is_never_worse_than_magnitude_at_equal_counts(seed: int, share: float) -> None:
    w, hessian = problem(8, 12, seed)
    keep = max(1, round(share * w.numel()))
    mask = choose(w.T[None], hessian[None], torch.ones(1, 8).double(), keep, exact=12)[0].T
    largest = torch.zeros(w.numel(), dtype=torch.bool)
    largest[w.abs().flatten().argsort(descending=True)[:keep]] = True
    assert int(mask.sum()) == keep
    assert error(w, hessian, mask) <= error(w, hessian, largest.view_as(w)) * (1 + 1e-9)


def test_greedy_is_near_the_best_of_all_masks() -> None:
    ratios = []
    for seed in range(20):
        w, hessian = problem(1, 6, seed)
        mask = choose(w.T[None], hessian[None], torch.ones(1, 1).double(), 3, exact=6)[0].T
        every = [torch.tensor([i in some for i in range(6)])[None] for some in itertools.combinations(range(6), 3)]
        ratios.append(error(w, hessian, mask) / min(error(w, hessian, one) for one in every))
    assert min(ratios) >= 1 - 1e-9 and sorted(ratios)[10] == pytest.approx(1, abs=1e-6)


def test_a_neuron_of_no_worth_goes_first() -> None:
    w, hessian = problem(4, 6)
    mask = choose(w.T[None], hessian[None], torch.tensor([[1.0, 0.0, 1.0, 1.0]]).double(), 18, exact=6)[0]
    assert mask.sum(0).tolist() == [6, 0, 6, 6]


def test_weights_that_are_zero_already_go_first() -> None:
    w, hessian = problem(4, 6)
    w[:, ::2] = 0
    mask = choose(w.T[None], hessian[None], torch.ones(1, 4).double(), 12, exact=6)[0].T
    assert torch.equal(mask, w != 0)


@pytest.mark.parametrize("exact", [0, 100])
def test_of_every_four_along_the_channels_two_stay(exact: int) -> None:
    w, hessian = problem(5, 8 * 9)
    mask = choose(w.T[None], hessian[None], torch.ones(1, 5).double(), 0, exact, Pattern(2, 4, kernel=9))[0].T
    assert (mask.view(5, 2, 4, 9).sum(2) == 2).all()


def test_the_pattern_knows_which_layers_it_suits() -> None:
    assert Pattern(2, 4, kernel=9).suits(8 * 9)
    assert not Pattern(2, 4, kernel=9).suits(3 * 9)


def test_several_at_a_time_are_charged_for_one_after_the_other() -> None:
    w, hessian = problem(3, 12)
    found = removal(w, hessian, together=5)
    for row in range(3):
        assert sorted(found.columns[row].tolist()) == list(range(12))
        for n in range(1, 13):
            stays = torch.ones(12, dtype=torch.bool)
            stays[found.columns[row, :n]] = False
            assert float(found.losses[row, :n].sum()) == pytest.approx(error(w[row : row + 1], hessian, stays[None]))


def test_a_direction_without_power_does_not_break_it() -> None:
    w, hessian = problem(3, 6)
    hessian[5], hessian[:, 5] = hessian[4], hessian[:, 4]
    hessian[5, 5] = hessian[4, 4] * (1 - 1e-6)  # what rounding may leave of two inputs that are alike
    assert removal(w, hessian).losses.isfinite().all()
