from __future__ import annotations

import itertools
from collections.abc import Collection

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.core.units import Ints
from penjing.graph.balance import unions


def parted(tables: list[Ints], classes: int, pinned: Collection[int] = ()) -> list[list[int]]:
    """The unions, each class in one at most."""
    found = [sorted(members) for _, members in unions(tables, np.isin(np.arange(classes), list(pinned)))]
    together = [c for members in found for c in members]
    assert len(set(together)) == len(together)
    return found


def lost(table: Ints, members: list[int]) -> list[int]:
    """How many each row loses."""
    return np.isin(table, members).sum(1).tolist()


def test_free_labels_go_by_column_and_what_is_balanced_stays_alone() -> None:
    assert parted([np.arange(6).reshape(3, 2)], 6) == [[0, 2, 4], [1, 3, 5]]
    assert parted([np.array([[0, 1], [0, 1]])], 2) == []


def test_pairs_of_neighbours_find_one_from_the_other_row() -> None:
    """The fifth of nine pairs in two rows lies in both."""
    assert parted([np.repeat(np.arange(9), 2).reshape(2, 9)], 9) == [[0, 5], [1, 6], [2, 7], [3, 8]]


def test_tables_that_cut_the_same_channels_at_other_places_are_met_together() -> None:
    """A shuffle between two grouped convolutions: tied position by position, these six would soon be one."""
    x = np.arange(12)
    found = parted([x.reshape(2, 6), x.reshape(6, 2).T.reshape(3, 4)], 12)
    assert len(found) == 2 and all(len(members) == 6 for members in found)
    one_way = parted([x.reshape(2, 6), x.reshape(6, 2).T], 12)
    assert len(one_way) == 6 and all(len(members) == 2 for members in one_way)


def test_a_concatenation_behind_other_channels_moves_the_groups() -> None:
    """ShuffleNet at half its width: 12 channels before 3 groups of 36, all read in 3 groups of 40."""
    x = np.arange(120)
    assert sorted(map(len, parted([x[12:].reshape(3, 36), x.reshape(3, 40)], 120))) == [3] * 28 + [9] * 4


def test_each_union_tells_the_table_that_asks_for_it() -> None:
    a, b = np.arange(4).reshape(2, 2), np.arange(4, 8).reshape(2, 2)
    assert list(unions([a, b, a], np.zeros(8, dtype=bool))) == [(0, [0, 2]), (0, [1, 3]), (1, [4, 6]), (1, [5, 7])]


def test_what_is_pinned_is_joined_only_where_nothing_else_makes_up_for_it() -> None:
    table = np.arange(6).reshape(2, 3)
    assert parted([table], 6, {0, 4}) == [[1, 3], [2, 5]]
    assert parted([table], 6, {0}) == [[1, 3], [2, 4], [0, 5]]


@st.composite
def rows(draw: st.DrawFn) -> tuple[list[Ints], int, set[int]]:
    """Up to three tables over parts of the same channels, some of which are one class or pinned."""
    width = draw(st.sampled_from([12, 24]))
    classes = np.array(draw(st.lists(st.integers(0, width - 1), min_size=width, max_size=width)))
    named = np.where(np.array(draw(st.lists(st.booleans(), min_size=width, max_size=width))), classes, np.arange(width))
    tables = []
    for _ in range(draw(st.integers(1, 3))):
        at, size = draw(st.sampled_from([(0, width), (0, width // 2), (width // 2, width // 2)]))
        part = named[at : at + size]
        tables.append(draw(st.permutations(part.tolist())) if draw(st.booleans()) else part.tolist())
    count = [draw(st.sampled_from([2, 3])) for _ in tables]
    pinned = draw(st.sets(st.integers(0, width - 1), max_size=2))
    return [np.array(t).reshape(n, -1) for t, n in zip(tables, count, strict=True)], width, pinned


@settings(max_examples=40)
@given(rows())
def test_all_rows_lose_equally_many_whatever_goes(case: tuple[list[Ints], int, set[int]]) -> None:
    tables, classes, pinned = case
    found = parted(tables, classes, pinned)
    alone = set(range(classes)) - {c for members in found for c in members}
    for members in [*found, *([c] for c in alone - pinned)]:
        for table in tables:
            assert len(set(lost(table, members))) == 1
    assert all(set(members) - pinned for members in found)


@pytest.mark.parametrize("seed", range(10))
def test_no_union_is_larger_than_it_must_be(seed: int) -> None:
    """Of the classes left when it is made, none fewer that hold its first one lose equally many in all rows."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 9, 12)
    tables = [classes.reshape(2, 6), rng.permutation(classes).reshape(3, 4)]
    left = {int(c) for c in classes}
    found = [members for _, members in unions(tables, np.zeros(9, dtype=bool))]
    single = {c for c in left if all(len(set(lost(table, [c]))) == 1 for table in tables)}
    left -= single
    for members in found:
        others = sorted(left - {members[0]})
        smaller = ([members[0], *more] for n in range(len(members) - 1) for more in itertools.combinations(others, n))
        assert not any(all(len(set(lost(table, list(some)))) == 1 for table in tables) for some in smaller)
        left -= set(members)
    assert not left
