"""Choices of options, some of which take other sites away: what they add up to, and what follows from a change."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.allocators.cover import Cover, Within, emptied
from penjing.core.units import Ints


@st.composite
def covers(draw: st.DrawFn) -> tuple[Cover, np.random.Generator]:
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    within: dict[int, tuple[int, int]] = {}
    for i in range(1, len(sizes)):
        if draw(st.booleans()):
            outer = draw(st.integers(0, i - 1))
            within[i] = outer, draw(st.integers(0, sizes[outer] - 1))
    _, cover = Cover.of([np.arange(n) for n in sizes], within)
    return cover, np.random.default_rng(draw(st.integers(0, 999)))


def choices(cover: Cover) -> list[Ints]:
    """Every choice there is, each once."""
    each = np.split(np.arange(len(cover.site)), cover.starts[1:])
    found = [cover.complete(np.array(way), cover.starts) for way in itertools.product(*each)]
    return list({tuple(way): way for way in found}.values())


def total(choice: Ints, values: np.ndarray) -> float:
    return float(values[choice[choice >= 0]].sum())


@settings(max_examples=60, deadline=None)
@given(covers())
def test_a_choice_covers_every_site_once(drawn: tuple[Cover, np.random.Generator]) -> None:
    cover, _ = drawn
    for choice in choices(cover):
        chosen = np.zeros(len(cover.site))
        chosen[choice[choice >= 0]] = 1
        assert (cover.members @ chosen == 1).all()


@settings(max_examples=60, deadline=None)
@given(covers())
def test_the_least_of_a_sum_is_told_and_what_each_option_adds(drawn: tuple[Cover, np.random.Generator]) -> None:
    cover, rng = drawn
    values = rng.normal(size=(len(cover.site), 2))
    least = cover.least(values)
    above = cover.above(values, least)
    sums = np.array([[total(choice, values[:, k]) for k in (0, 1)] for choice in choices(cover)])
    assert least.sum(0) == pytest.approx(sums.min(0)) and above.min() > -1e-12
    again = [[total(choice, above[:, k]) + least[:, k].sum() for k in (0, 1)] for choice in choices(cover)]
    assert np.array(again) == pytest.approx(sums)


@settings(max_examples=25, deadline=None)
@given(covers())
def test_a_change_of_one_site_is_foretold(drawn: tuple[Cover, np.random.Generator]) -> None:
    cover, rng = drawn
    values, usual, every = rng.normal(size=len(cover.site)), cover.starts, choices(cover)
    known = {tuple(one) for one in every}
    for choice in rng.permutation(every)[:20]:
        more = cover.changed(choice, values, usual)
        for option, change in enumerate(more):
            if choice[cover.site[option]] < 0:
                assert change == np.inf
            else:
                after = cover.turned(choice, option, usual)
                assert tuple(after) in known and after[cover.site[option]] == option
                assert total(after, values) - total(choice, values) == pytest.approx(change, abs=1e-9)


NESTED: Within = {1: (0, 0), 2: (1, 0), 3: (0, 0)}
"""Site 2 lies within 1, which lies within 0, as does 3."""


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ([[0, 1], [0, 1], [0], [0]], [[0, 1], [0, 1], [0], [0]]),
        ([[0, 1], [0, 1], [], [0]], [[0, 1], [0], [], [0]]),
        ([[0, 1], [1], [], [0]], [[0], [], [], [0]]),
        ([[0, 1], [], [0], [0]], [[0], [], [], [0]]),
        ([[1], [0, 1], [0], []], None),
        ([[], [0, 1], [0], [0]], None),
    ],
)
def test_what_has_no_option_left_must_be_taken_away(options: list[list[int]], left: list[list[int]] | None) -> None:
    found = emptied([np.array(mine, dtype=np.int64) for mine in options], NESTED)
    assert (None if found is None else [mine.tolist() for mine in found]) == left
