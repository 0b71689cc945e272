"""The closed forms: counted by hand, and what holds for all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penjing.targets.systolic import (
    DATAFLOWS,
    Registers,
    Rows,
    Words,
    cycles,
    row_stationary,
    row_stationary_words,
    skipped,
    words,
)

ARRAYS = [flow for flow in DATAFLOWS if flow != "row_stationary"]
SIDES = st.integers(1, 70)
SIZES = st.integers(1, 300)


@pytest.mark.parametrize(
    ("dataflow", "by_hand"),
    [
        ("output_stationary", (3 + 2 + 9 - 2) * 2 * 2),  # m 6 in threes, n 4 in twos
        ("weight_stationary", (2 * 3 + 2 + 6 - 2) * 3 * 2),  # k 9 in threes, n 4 in twos, 6 stream through
        ("input_stationary", (2 * 3 + 2 + 4 - 2) * 3 * 3),  # k 9 in threes, m 6 in twos, 4 stream through
        ("simd", 6 * 4 * 2),  # k 9 in sixes
    ],
)
def test_cycles_of_a_small_product_on_3_by_2(dataflow: str, by_hand: int) -> None:
    assert cycles(dataflow, 6, 9, 4, 3, 2) == by_hand


@pytest.mark.parametrize(
    ("dataflow", "by_hand"),
    [
        ("output_stationary", Words(6 * 9 * 2, 9 * 4 * 2, 0, 6 * 4)),
        ("weight_stationary", Words(6 * 9 * 2, 9 * 4, 6 * 4 * 5, 0)),
        ("input_stationary", Words(6 * 9, 9 * 4 * 3, 6 * 4 * 5, 0)),
        ("simd", Words(6 * 9 * 2, 9 * 4 * 2, 0, 6 * 4)),
    ],
)
def test_words_of_a_small_product_on_3_by_2(dataflow: str, by_hand: Words) -> None:
    assert words(dataflow, 6, 9, 4, 3, 2) == by_hand


def test_output_stationary_is_a_walk_of_the_wavefront() -> None:
    """The last multiplier gets its first pair after rows + columns - 2 cycles, and its last k - 1 later."""
    rows, columns, k = 4, 3, 7
    last = max(i + j + t for i in range(rows) for j in range(columns) for t in range(k))
    assert cycles("output_stationary", rows, k, columns, rows, columns) == last + 1


def test_row_stationary_by_hand() -> None:
    """2 x 2 sets of 3 x 4 elements do six pairs of channels in two steps; each output row takes 4 x 3 cycles."""
    assert row_stationary(Rows(3, 3, 4, 4, 6), 6, 8) == 4 * 3 * 2
    assert row_stationary(Rows(3, 3, 9, 4, 6), 6, 8) == 4 * 3 * 3 * 2  # nine rows in two strips, two sets
    assert row_stationary(Rows(7, 7, 4, 4, 1), 6, 8) == 4 * 7 * 2  # seven kernel rows in two passes


def test_row_stationary_words_by_hand() -> None:
    """An element holds two channels and three filters; four sets share inputs or sums."""
    conv, held = Rows(3, 3, 4, 4, 8 * 24), Words(100, 1000, 0, 10)
    registers = Registers(inputs=6, weights=18, sums=9)
    shared = {1: (24 // 12, 4), 2: (24 // 6, 2), 4: (24 // 3, 1)}  # filters' rounds, channels' rounds
    least = min(2 * 100 * outs + 4 * 10 * (2 * ins - 1) for outs, ins in shared.values())
    moved = row_stationary_words(conv, (8, 24), held, 6, 8, registers, 2)
    assert (moved.bytes(2), moved.weights) == (least + 2 * 1000, 1000)


@given(st.sampled_from(ARRAYS), SIZES, SIZES, SIZES, SIDES, SIDES, st.booleans())
def test_no_array_is_faster_than_its_multipliers(flow: str, m: int, k: int, n: int, r: int, c: int, o: bool) -> None:
    assert cycles(flow, m, k, n, r, c, o) * r * c >= m * k * n


@given(st.sampled_from(ARRAYS), SIZES, SIZES, SIZES, SIDES, SIDES, st.booleans())
def test_nothing_takes_longer_when_a_side_shrinks(flow: str, m: int, k: int, n: int, r: int, c: int, o: bool) -> None:
    whole, moved = cycles(flow, m, k, n, r, c, o), words(flow, m, k, n, r, c)
    for less in ((m, max(k - 1, 1), n), (m, k, max(n - 1, 1))):
        assert cycles(flow, *less, r, c, o) <= whole <= cycles(flow, m, k, n, r, c)
        assert all(a <= b for a, b in zip(words(flow, *less, r, c), moved, strict=True))


@given(st.sampled_from(ARRAYS), SIZES, SIZES, SIZES, SIDES, SIDES, st.data())
def test_skipping_gains_from_zeros_and_from_channels_that_go(
    flow: str, m: int, k: int, n: int, r: int, c: int, data: st.DataObject
) -> None:
    full = skipped(flow, r * c * m, r * k, c * n, r, c, r * k * c * n)
    if flow != "simd":  # whose padding is along k alone
        assert full == cycles(flow, r * c * m, r * k, c * n, r, c)
    nonzero = data.draw(st.integers(0, k * n))
    some = skipped(flow, m, k, n, r, c, nonzero)
    assert some <= cycles(flow, m, k, n, r, c)
    assert skipped(flow, m, k, n, r, c, max(nonzero - 1, 0)) <= some
    if k > 1:
        assert skipped(flow, m, k - 1, n, r, c, min(nonzero, (k - 1) * n)) <= some


def test_a_dataflow_without_a_closed_form_is_refused() -> None:
    for form in (cycles, words):
        with pytest.raises(ValueError, match="row_stationary"):
            form("row_stationary", 1, 1, 1, 1, 1)
