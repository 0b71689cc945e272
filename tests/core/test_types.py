"""Plans and sites as plain data."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penjing.core.errors import PlanError
from penjing.core.types import Bound, Layer, Plan, Site, Value


def site(name="conv", size=20, step=1, least=1):
    return Site(name, "channels", size, (), np.arange(size), step=step, least=least)


@given(st.integers(1, 200), st.sampled_from([1, 2, 4, 8, 16, 32]), st.integers(1, 10), st.floats(0, 250))
def test_counts_are_multiples_of_the_step_or_everything(size, step, least, wanted):
    s = site(size=size, step=step, least=least)
    allowed = [n for n in range(1, size) if n % step == 0 and n >= least] + [size]
    below = [n for n in allowed if n <= wanted]
    assert s.allowed(wanted) == (max(below) if below else min(allowed))
    for count in allowed:
        lower = [n for n in allowed if n < count]
        assert s.below(count) == (max(lower) if lower else count)


@given(st.lists(st.sets(st.integers(0, 40), min_size=1), min_size=1, max_size=4))
def test_a_plan_survives_json(choices):
    sites = [site(f"s{i}", 41) for i in range(len(choices))]
    plan = Plan.of("channels", {f"s{i}": sorted(c) for i, c in enumerate(choices)}, sites)
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again.key == plan.key
    assert [e.kept.tolist() for e in again] == [e.kept.tolist() for e in plan]


def test_a_whole_site_is_left_out_and_order_does_not_matter():
    plan = Plan.of("channels", {"conv": [3, 1, 2, 1]}, [site()])
    assert plan.of_rewrite("channels")["conv"].tolist() == [1, 2, 3]
    assert len(Plan.of("channels", {"conv": range(20)}, [site()])) == 0


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"cnv": [0]}, "Did you mean 'conv'"),
        ({"conv": []}, "would lose all of its 20 units"),
        ({"conv": [0, 20]}, "has units 0 to 19"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(kept, message):
    with pytest.raises(PlanError, match=message):
        Plan.of("channels", kept, [site()])


def test_broken_json_is_no_plan():
    for broken in ([{"rewrite": "channels"}], ["channels"], {"check": []}, [{"kept": [[1]], "site": 1}]):
        with pytest.raises(PlanError, match="not a plan: each entry"):
            Plan.from_json(broken)


def layer(**changes):
    facts = {
        "name": "c", "kind": "conv", "weight": "c.weight", "bias": None, "in_units": np.arange(8),
        "out_units": np.arange(8, 20), "in_channels": 8, "out_channels": 12, "groups": 1, "kernel": (3, 3),
        "stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "transposed": False, "in_size": (5, 5),
        "out_size": (5, 5),
    }  # fmt: skip
    return Layer(**(facts | changes))


def test_macs_by_hand_and_after_a_cut():
    gone = np.zeros(20, dtype=bool)
    gone[[0, 1, 8, 9, 10]] = True
    assert layer().macs == 25 * 9 * 8 * 12
    assert layer().shrunk(gone).macs == 25 * 9 * 6 * 9
    depthwise = layer(in_units=np.arange(8), out_units=np.arange(8), out_channels=8, groups=8, follows=True)
    assert depthwise.macs == 25 * 9 * 8
    assert depthwise.shrunk(gone).macs == 25 * 9 * 6 and depthwise.shrunk(gone).groups == 6


def test_values_shrink_with_their_units():
    value = Value(10, (np.array([0, 1, 2, -1]),), 0, 3)
    gone = np.array([True, False, False])
    assert value.elements(gone) == 30


def test_bounds_allow_rounding_only():
    bound = Bound("macs", 100.0, "100")
    assert bound.met(100.0) and not bound.met(100.001)
