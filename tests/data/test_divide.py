import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.core.errors import DataError
from penjing.data.divide import check_classes, check_labels, count_of, divide, pick


def largest_remainders(sizes: list[int], count: int) -> tuple[list[int], list[int]]:
    """Return the least and most each class may get, from exact fractions."""
    total = sum(sizes)
    floors = [count * size // total for size in sizes]
    remainders = [count * size % total for size in sizes]
    left = count - sum(floors)
    least, most = floors[:], floors[:]
    if left:
        edge = sorted(remainders, reverse=True)[left - 1]
        ties = sum(r == edge for r in remainders) > left - sum(r > edge for r in remainders)
        for c, r in enumerate(remainders):
            if r >= edge:
                most[c] += 1
            if r > edge or (r == edge and not ties):
                least[c] += 1
    return least, most


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.data())
def test_shares_are_the_largest_remainders_where_room_allows(sizes, data):
    count = data.draw(st.integers(0, sum(sizes)))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    got = np.bincount(labels[pick(labels, count, 3, "x")], minlength=len(sizes))
    least, most = largest_remainders(sizes, count)
    assert got.sum() == count
    assert all(low <= g <= high for low, g, high in zip(least, got, most, strict=True))


@settings(deadline=None)
@given(st.lists(st.integers(2, 30), min_size=1, max_size=6), st.data())
def test_dividing_loses_nothing_and_leaves_every_class_one(sizes, data):
    count = data.draw(st.integers(1, sum(sizes) - len(sizes)))
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    rest, cut = divide(labels, count, 5, "x")
    assert sorted([*rest, *cut]) == list(range(len(labels)))
    assert len(cut) == count
    assert list(rest) == sorted(rest)
    assert set(labels[rest]) == set(range(len(sizes)))


def test_the_pick_is_a_function_of_seed_and_name_and_is_shuffled():
    labels = np.repeat([0, 1], 50)
    first = pick(labels, 40, 1, "a")
    assert np.array_equal(first, pick(labels, 40, 1, "a"))
    assert not np.array_equal(first, pick(labels, 40, 2, "a"))
    assert not np.array_equal(first, pick(labels, 40, 1, "b"))
    assert 0 < labels[first[:20]].sum() < 20  # not one class first


def test_ties_do_not_favour_the_first_classes():
    labels = np.repeat(np.arange(10), 10)
    seen = {int(labels[pick(labels, 1, seed, "x")[0]]) for seed in range(100)}
    assert len(seen) == 10


def test_a_class_of_one_gives_nothing_up():
    rest, cut = divide(np.array([0, 0, 0, 1]), 2, 0, "x")
    assert 3 in rest
    assert len(cut) == 2


def test_too_large_a_part_is_refused_with_numbers():
    with pytest.raises(
        DataError, match="3 pictures are asked of 4, which give at most 2 when each of 2 classes keeps 1"
    ):
        divide(np.array([0, 0, 0, 1]), 3, 0, "x")
    with pytest.raises(DataError, match=r"5 pictures are asked of 4, which give at most 4\."):
        pick(np.array([0, 0, 0, 1]), 5, 0, "x")


@pytest.mark.parametrize(
    ("part", "total", "count"), [(0.1, 50_000, 5_000), (0.1, 30, 3), (0.2, 1797, 360), (0.001, 10, 1), (7, 10, 7)]
)
def test_fractions_round_up_and_counts_stay(part, total, count):
    assert count_of(part, total, "val") == count


@pytest.mark.parametrize("part", [0, -3, 0.0, 1.0, -0.1, 1.5, float("nan"), True, "0.1", None])
def test_other_parts_are_refused(part):
    with pytest.raises(DataError, match=r"^val = .* is not right"):
        count_of(part, 100, "val")


def test_labels_outside_the_classes_are_named():
    check_labels("x", np.array([0, 1]), "ab")
    with pytest.raises(DataError, match=r"train has the label -1, outside 0 to 1 \(2 classes\)"):
        check_labels("train", np.array([0, -1]), "ab")
    with pytest.raises(DataError, match="the label 2, outside"):
        check_labels("train", np.array([0, 2]), "ab")
    with pytest.raises(DataError, match="train has no pictures"):
        check_labels("train", np.array([], np.int64), "ab")


def test_classes_of_train_and_test_must_agree():
    check_classes("set", np.array([0, 1]), np.array([1, 0, 0]), "ab")
    with pytest.raises(DataError, match=r"set: 1 classes of test do not occur in train \('c'\)"):
        check_classes("set", np.array([0, 1]), np.array([0, 1, 2]), "abc")
    with pytest.raises(DataError, match=r"4 classes of train do not occur in test \('b', 'c', 'd', \.\.\.\)"):
        check_classes("set", np.arange(5), np.array([0]), "abcde")
    with pytest.raises(DataError, match=r"one class only \('b'\)"):
        check_classes("set", np.array([1, 1]), np.array([1]), "ab")
