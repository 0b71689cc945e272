"""The cheapest thresholds that are right often enough, against all that differ."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.steps.thresholds import NEVER, Costs, choose, outcome

COSTS = Costs(leave=(2.0, 4.0, 7.0), heads=(0.5, 0.75), plain=5.5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 9), spare=st.integers(0, 2), spread=st.sampled_from([4, 1000]))
def test_nothing_is_cheaper_and_right_as_often(seed, count, spare, spread):
    rng = np.random.default_rng(seed)
    sure, right = rng.integers(1, spread, (2, count)) / spread, rng.random((3, count)) < [[0.6], [0.8], [0.9]]
    least = int(right[-1].sum()) - spare
    found = choose(sure, right, COSTS, least)
    assert found.right >= least
    every = (outcome(sure, right, COSTS, t) for t in product(*([0.0, *np.unique(one), NEVER] for one in sure)))
    assert found.cost == pytest.approx(min(one.cost for one in every if one.right >= least))


def test_costs_leave_out_what_is_never_asked():
    assert COSTS.of([True, True]).tolist() == [2, 4, 7]
    assert COSTS.of([False, True]).tolist() == [2, 3.5, 6.5]
    assert COSTS.of([True, False]).tolist() == [2, 4, 6.25]
    assert COSTS.of([False, False]).tolist() == [5.5] * 3


def test_exits_that_save_nothing_are_never_asked():
    sure, right = np.array([[0.9, 0.8]]), np.ones((2, 2), dtype=bool)
    found = choose(sure, right, Costs((3.0, 5.0), (2.5,), 2.5), 2)
    assert found.thresholds == (NEVER,) and found.cost == 2.5


def test_exits_that_nothing_leaves_at_are_never_asked():
    sure, right = np.array([[0.9, 0.8], [0.7, 0.7]]), np.ones((3, 2), dtype=bool)
    assert choose(sure, right, Costs((1.0, 3.0, 9.0), (0.1, 0.1), 8.0), 2).thresholds == (0.0, NEVER)


def test_thresholds_lie_between_what_was_seen_and_are_what_a_file_holds():
    sure, right = np.array([[0.9, 0.8, 0.6, 0.4]]), np.array([[1, 1, 0, 0], [1, 1, 1, 1]], dtype=bool)
    found = choose(sure, right, Costs((1.0, 3.0), (0.5,), 2.5), 4)
    (threshold,) = found.thresholds
    assert threshold == pytest.approx(0.7) and float(np.float32(threshold)) == threshold
    assert found.at.tolist() == [0, 0, 1, 1] and found.cost == 2
