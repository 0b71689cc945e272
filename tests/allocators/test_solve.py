"""The solver against brute force, and where there is little or nothing to choose from."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.allocators.cover import Within
from penjing.allocators.solve import ALONE, TAKEN, Solution, solve
from penjing.core.units import Floats

VALUES = st.integers(0, 12) | st.floats(0, 9).map(lambda x: round(x, 3))


def taken(site: int, way: tuple[int, ...], within: Within) -> bool:
    """Whether a way chooses nothing at a site, since something that it lies within is chosen to go."""
    if site not in within:
        return False
    outer, option = within[site]
    return way[outer] == option or taken(outer, way, within)


def best(losses: list[Floats], costs: list[Floats], limits: Floats, within: Within = ALONE) -> float:
    """The least loss of all choices that keep the limits, infinite where none does."""
    found = math.inf
    for way in itertools.product(*(range(len(loss)) for loss in losses)):
        left = [(i, j) for i, j in enumerate(way) if not taken(i, way, within)]
        spent = sum((costs[i][j] for i, j in left), np.zeros(len(limits)))
        if (spent <= limits + 1e-9).all():
            found = min(found, sum(losses[i][j] for i, j in left))
    return float(found)


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[Floats], list[Floats], Floats]:
    budgets, shift = draw(st.integers(1, 3)), draw(st.sampled_from([0, 0, 5]))
    counts = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    losses = [np.array(draw(st.lists(VALUES, min_size=n, max_size=n)), dtype=float) - shift for n in counts]
    row = st.lists(VALUES, min_size=budgets, max_size=budgets)
    costs = [np.array(draw(st.lists(row, min_size=n, max_size=n)), dtype=float) - shift for n in counts]
    limits = np.array(draw(st.lists(st.integers(-10, 25), min_size=budgets, max_size=budgets)), dtype=float)
    return losses, costs, limits


@settings(max_examples=150, deadline=None)
@given(problems())
def test_it_finds_what_brute_force_finds(problem: tuple[list[Floats], list[Floats], Floats]) -> None:
    losses, costs, limits = problem
    least, found = best(losses, costs, limits), solve(losses, costs, limits, gap=0.0)
    if found is None:
        assert least == math.inf
        return
    spent = sum(cost[j] for cost, j in zip(costs, found.choice, strict=True))
    assert (spent <= limits + 1e-9).all()
    assert found.loss == pytest.approx(sum(loss[j] for loss, j in zip(losses, found.choice, strict=True)), abs=1e-9)
    assert found.loss == pytest.approx(least, abs=1e-6)
    assert found.bound <= least + 1e-9


@st.composite
def nested(draw: st.DrawFn) -> tuple[list[Floats], list[Floats], Floats, Within]:
    """Some sites lie within others, up to four deep."""
    losses, costs, limits = draw(problems())
    within = {}
    for i in range(1, len(losses)):
        if draw(st.booleans()):
            outer = draw(st.integers(0, i - 1))
            within[i] = outer, draw(st.integers(0, len(losses[outer]) - 1))
    order = draw(st.permutations(range(len(losses))))
    new = {old: i for i, old in enumerate(order)}
    moved = {new[i]: (new[j], option) for i, (j, option) in within.items()}
    return [losses[i] for i in order], [costs[i] for i in order], limits, moved


def left(found: Solution, within: Within) -> list[tuple[int, int]]:
    """The options chosen, once nothing is chosen where something is taken away, and there alone."""
    way = tuple(found.choice)
    assert [j == TAKEN for j in way] == [taken(i, way, within) or found.choice[within[i][0]] == TAKEN
                                         if i in within else False for i in range(len(way))]  # fmt: skip
    return [(i, j) for i, j in enumerate(way) if j != TAKEN]


@settings(max_examples=100, deadline=None)
@given(nested())
def test_sites_within_sites_are_chosen_as_brute_force_does(
    problem: tuple[list[Floats], list[Floats], Floats, Within],
) -> None:
    losses, costs, limits, within = problem
    least, found = best(losses, costs, limits, within), solve(losses, costs, limits, within=within, gap=0.0)
    if found is None:
        assert least == math.inf
        return
    chosen = left(found, within)
    assert (sum((costs[i][j] for i, j in chosen), np.zeros(len(limits))) <= limits + 1e-9).all()
    assert found.loss == pytest.approx(sum(losses[i][j] for i, j in chosen), abs=1e-9)
    assert found.loss == pytest.approx(least, abs=1e-6) and found.bound <= least + 1e-9
    rounded = solve(losses, costs, limits, within=within, seconds=0)
    if rounded is not None:
        chosen = left(rounded, within)
        assert (sum((costs[i][j] for i, j in chosen), np.zeros(len(limits))) <= limits + 1e-9).all()
        assert rounded.bound - 1e-9 <= least <= rounded.loss + 1e-9


@pytest.mark.parametrize("seed", range(8))
def test_blocks_are_solved_as_if_each_were_one_choice_of_all_that_is_in_it(seed: int) -> None:
    """Each block goes, or stays with one of every pair of options of the two sites in it: one site of 17 options."""
    rng = np.random.default_rng(seed)
    losses, costs, within, as_one, priced = [], [], {}, [], []
    for first in range(0, 36, 3):
        block, inner = (
            rng.integers(20, 60, 1).astype(float),
            -np.sort(-rng.integers(0, 40, (2, 4)), axis=1).astype(float),
        )
        spent = np.sort(rng.integers(1, 50, (2, 4, 2)), axis=1).astype(float)
        rest = rng.integers(1, 20, 2).astype(float)
        losses += [np.append(block, 0.0), *inner]
        costs += [np.array([np.zeros(2), rest]), *spent]
        within |= {first + 1: (first, 0), first + 2: (first, 0)}
        as_one.append(np.append(block, (inner[0][:, None] + inner[1]).ravel()))
        priced.append(np.concatenate([np.zeros((1, 2)), (rest + spent[0][:, None] + spent[1]).reshape(16, 2)]))
    limits = 0.45 * np.sum([cost[-1] for cost in priced], axis=0)
    found = solve(losses, costs, limits, within=within, gap=1e-9)
    reference = solve(as_one, priced, limits, gap=1e-9)
    assert found is not None and found.proven and reference is not None and reference.proven
    assert found.loss == pytest.approx(reference.loss)
    chosen = left(found, within)
    assert found.loss == pytest.approx(sum(losses[i][j] for i, j in chosen))
    assert (sum(costs[i][j] for i, j in chosen) <= limits + 1e-9).all()
    assert 0 < found.choice.count(TAKEN) < 24


@settings(max_examples=50, deadline=None)
@given(problems())
def test_the_rounding_keeps_the_limits_and_its_gap_is_true(problem: tuple[list[Floats], list[Floats], Floats]) -> None:
    losses, costs, limits = problem
    found = solve(losses, costs, limits, seconds=0)
    if found is not None:
        least = best(losses, costs, limits)
        assert (sum(cost[j] for cost, j in zip(costs, found.choice, strict=True)) <= limits + 1e-9).all()
        assert found.bound - 1e-9 <= least <= found.loss + 1e-9
        assert found.loss - least <= found.gap * abs(found.loss) + 1e-9


def layers(sites: int, seed: int = 0) -> tuple[list[Floats], list[Floats], Floats]:
    """Sites whose loss grows the faster the less they keep, and costs of which one is a staircase."""
    rng = np.random.default_rng(seed)
    kept = np.linspace(1 / 30, 1, 30)
    losses = [np.exp(rng.normal(0, 1.5)) * (1 - kept) ** rng.uniform(1, 4) for _ in range(sites)]
    costs = [np.exp(rng.normal(0, 1, 2)) * np.stack([kept, np.ceil(30 * kept / 8) / 4], axis=1) for _ in range(sites)]
    return losses, costs, 0.5 * np.sum([cost[-1] for cost in costs], axis=0)


def test_a_large_one_is_proved_and_the_same_each_time() -> None:
    losses, costs, limits = layers(100)
    found = solve(losses, costs, limits)
    assert found is not None and found.proven and found.gap <= 1e-3
    assert found == solve(losses, costs, limits)
    rounded = solve(losses, costs, limits, seconds=0)
    assert rounded is not None and rounded.loss >= found.loss and rounded.bound <= found.loss


def one(losses: list[list[float]], costs: list[list[float]], limit: float) -> Solution | None:
    return solve([np.array(x) for x in losses], [np.array(x)[:, None] for x in costs], np.array([limit]))


@pytest.mark.parametrize(
    ("losses", "costs", "limit", "choice"),
    [
        ([[3.0]], [[2.0]], 2.0, [0]),
        ([[3.0]], [[2.0]], 1.9, None),
        ([[0.0, 0.0], [0.0, 0.0]], [[1.0, 2.0], [2.0, 1.0]], 2.0, [0, 1]),
        ([[2.0, 1.0, 0.0]], [[0.0, 0.0, 0.0]], 0.0, [2]),
        ([[math.inf, 1.0], [0.0, 5.0]], [[0.0, 1.0], [math.inf, 1.0]], 2.0, [1, 1]),
        ([[math.inf]], [[0.0]], 2.0, None),
        ([[1.0, 0.0]], [[1.0, 9.0]], math.inf, [1]),
        ([[-1.0, -3.0], [-2.0, 0.0]], [[-1.0, 1.0], [1.0, -1.0]], 0.0, [1, 1]),
        ([[-1.0, -4.0], [-2.0, 0.0]], [[-1.0, 1.0], [1.0, -1.0]], 0.0, [1, 1]),
        ([[1e-12, 0.0], [1e-12, 0.0]], [[0.0, 1e9], [0.0, 1e9]], 1e9, [0, 1]),
    ],
)
def test_the_ends(losses: list[list[float]], costs: list[list[float]], limit: float, choice: list[int] | None) -> None:
    found = one(losses, costs, limit)
    if choice is None:
        assert found is None
    else:
        assert found is not None and found.proven
        assert found.loss == pytest.approx(sum(loss[j] for loss, j in zip(losses, choice, strict=True)))


@pytest.mark.parametrize(
    ("losses", "costs", "limit", "choice"),
    [
        # The block goes: cheaper than what is lost within it.
        ([[3.0, 0.0], [9.0, 4.0, 0.0]], [[0.0, 1.0], [1.0, 2.0, 4.0]], 4.0, [0, TAKEN]),
        # The block stays with some of it cut: cheaper than to take it out.
        ([[5.0, 0.0], [9.0, 4.0, 0.0]], [[0.0, 1.0], [1.0, 2.0, 4.0]], 4.0, [1, 1]),
        # Nothing within it fits, so that it must go.
        ([[5.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [5.0, 5.0]], 4.0, [0, TAKEN]),
        # Nothing within it is allowed, nor may it go.
        ([[math.inf, 0.0], [math.inf]], [[0.0, 0.0], [0.0]], 4.0, None),
        # What stays beats what goes in loss and cost, but not with what lies within it.
        ([[2.0, 1.0], [6.0, 5.0]], [[2.0, 1.0], [0.0, 1.0]], 9.0, [0, TAKEN]),
    ],
)
def test_the_ends_of_what_lies_within(
    losses: list[list[float]], costs: list[list[float]], limit: float, choice: list[int] | None
) -> None:
    arrays = [np.array(x)[:, None] for x in costs]
    found = solve([np.array(x) for x in losses], arrays, np.array([limit]), within={1: (0, 0)})
    assert (None if found is None else found.choice) == choice


def test_without_a_budget_the_least_loss_is_chosen() -> None:
    found = solve([np.array([2.0, 1.0])], [np.zeros((2, 0))], np.zeros(0))
    assert found == Solution([1], 1.0, 1.0, 0.0, True)
