import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penjing.core.errors import PlanError
from penjing.core.plan import Plan
from penjing.core.sites import Site


def site(name="conv", size=20, step=1, least=1):
    return Site(name, "channels", size, (), np.arange(size), step=step, least=least)


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
