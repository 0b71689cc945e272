from __future__ import annotations

import random

import numpy as np
import pytest

from penjing.graph.labels import Labels, Reason


def test_labels_are_fresh() -> None:
    labels = Labels()
    assert labels.fresh(3).tolist() == [0, 1, 2] and labels.fresh(2).tolist() == [3, 4] and labels.count == 5


def test_no_labels_have_no_classes() -> None:
    labels = Labels()
    number, reasons = labels.reasons(labels.classes())
    assert len(labels.classes()) == 0 and len(number) == 0 and reasons == []


@pytest.mark.parametrize("seed", range(20))
def test_classes_equal_a_flood_fill(seed: int) -> None:
    rng = random.Random(seed)
    labels = Labels()
    vectors = [labels.fresh(rng.randint(1, 6)) for _ in range(8)]
    neighbours: dict[int, set[int]] = {i: {i} for i in range(labels.count)}
    for _ in range(6):
        a, b = rng.choice(vectors), rng.choice(vectors)
        n = min(len(a), len(b))
        labels.tie(a[:n], b[:n])
        for i, j in zip(a[:n].tolist(), b[:n].tolist(), strict=True):
            neighbours[i].add(j)
            neighbours[j].add(i)
    classes = labels.classes()
    for start in range(labels.count):
        reached, frontier = {start}, [start]
        while frontier:
            new = neighbours[frontier.pop()] - reached
            reached |= new
            frontier += new
        assert reached == set(np.flatnonzero(classes == classes[start]).tolist())


def test_tying_rows_ties_columns() -> None:
    labels = Labels()
    table = labels.fresh(6).reshape(3, 2)
    assert labels.tie_rows(table).tolist() == [0, 1]
    assert labels.classes()[table].tolist() == [labels.classes()[[0, 1]].tolist()] * 3
    assert len(set(labels.classes().tolist())) == 2


def test_balance_of_free_labels_ties_columns() -> None:
    labels = Labels()
    table = labels.fresh(6).reshape(3, 2)
    labels.balance(table)
    assert labels.classes()[table].tolist() == [labels.classes()[[0, 1]].tolist()] * 3
    ties = len(labels._edges)
    labels.balance(table)
    labels.classes()
    assert len(labels._edges) == ties


def test_balance_knows_ties_and_pins_that_come_later() -> None:
    labels = Labels()
    table = labels.fresh(6).reshape(2, 3)
    labels.cause = "a split"
    labels.balance(table)
    labels.cause = "a sum"
    labels.tie(table[0, :1], table[1, 2:])
    labels.pin(table[0, 1:2], Reason("code"))
    classes = labels.classes()
    groups = sorted(np.flatnonzero(classes == c).tolist() for c in set(classes.tolist()))
    assert groups == [[0, 5], [1, 4], [2, 3]]
    assert labels.ties_among(np.array([2, 3]), classes) == (["a split"], True)
    assert labels.ties_among(np.array([0, 5]), classes) == (["a sum"], False)


def test_groups_read_the_same_where_other_code_reads_their_axis() -> None:
    labels = Labels()
    x = labels.fresh(6)
    labels.bind_groups("w", 2, x)
    axis = labels.axis("w", 1, 3)
    labels.part_groups()
    classes = labels.classes()
    assert classes[x].tolist() == classes[axis].tolist() * 2


@pytest.mark.parametrize("seed", range(30))
def test_balance_lets_every_row_lose_equally_many(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = Labels()
    rows = int(rng.integers(2, 5))
    table = labels.fresh(rows * 6).reshape(rows, 6)
    for _ in range(int(rng.integers(0, 6))):
        labels.tie(*(rng.choice(table.ravel(), (2, 2))))
    labels.balance(table)
    classes = labels.classes()[table]
    for c in np.unique(classes):
        lost = (classes == c).sum(1)
        assert lost.min() == lost.max()


def test_first_reason_wins_but_constants_go_first_and_outputs_last() -> None:
    labels = Labels()
    a, b, c = labels.fresh(1), labels.fresh(1), labels.fresh(1)
    output, one, two = Reason("output", boundary=True), Reason("one"), Reason("two")
    constant = Reason("constant", fixed_by_code=True)
    for reason in (output, one, two):
        labels.pin(a, reason)
    labels.pin(b, two)
    labels.pin(b, constant)
    number, reasons = labels.reasons(labels.classes())
    assert [reasons[number[x[0]]] for x in (a, b)] == [one, constant] and number[c[0]] == -1


def test_a_suspect_is_told_only_where_something_else_pins() -> None:
    labels = Labels()
    a, b, c = labels.fresh(1), labels.fresh(1), labels.fresh(1)
    labels.pin(a, Reason("symptom"))
    labels.pin(c, Reason("output", boundary=True))
    cause = Reason("cause", fixed_by_code=True)
    for x in (a, b, c):
        labels.suspect(x, cause)
    number, reasons = labels.reasons(labels.classes())
    assert reasons[number[0]] == cause and number[1] == -1 and reasons[number[2]].boundary


def test_parameters_get_labels_once_and_roles_only_rise() -> None:
    labels = Labels()
    axis = labels.axis("w", 0, 3)
    assert labels.axis("w", 0, 3) is axis
    for role, expected in (("tied", "tied"), ("in", "in"), ("tied", "in"), ("out", "out"), ("in", "out")):
        labels.mark("w", 0, role)
        assert labels.roles["w", 0] == expected
    other = labels.fresh(3)
    labels.bind("w", 0, other)
    assert labels.classes()[axis].tolist() == labels.classes()[other].tolist()


def test_ties_are_explained_by_what_joined_the_labels_asked_for() -> None:
    labels = Labels()
    x, y = labels.fresh(4), labels.fresh(4)
    labels.cause = "a copy"
    labels.tie(x, y)
    labels.cause = "a pair"
    labels.tie_rows(y.reshape(2, 2))
    labels.cause = "a swap"
    labels.tie(x[:2], x[1::-1])
    labels.cause = "no news"
    labels.tie(x[:1], y[3:])
    classes = labels.classes()
    assert len(set(classes.tolist())) == 1
    assert labels.ties_among(x, classes) == (["a pair", "a swap"], False)
    assert labels.ties_among(x[[0, 2]], classes) == (["a pair"], True)
