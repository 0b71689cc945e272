"""Taylor pruning in rounds: each goes its part of the way to whatever budget there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import penjing
from penjing.core.errors import PlanError
from penjing.methods.taylor_fo import taylor_fo
from tiny import pictures, skilled


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"between": 0}, {"epochs": 0}, {"images": 0}], ids=str)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match=rf"taylor_fo: {next(iter(wrong))} must be 1 or more; got 0"):
        taylor_fo(**wrong)


def test_rounds_take_equal_parts_of_the_way() -> None:
    way, now = [], 1.0
    for step in taylor_fo(rounds=4)()[::2]:
        now += step["prune"]["towards"] * (0.2 - now)
        way.append(now)
    assert way == pytest.approx([0.8, 0.6, 0.4, 0.2])


@pytest.mark.parametrize("cost", ["macs", "memory"])
def test_the_network_shrinks_in_rounds_until_the_budget_holds(cost: str, tmp_path: Path) -> None:
    run = penjing.run(skilled(), pictures(tmp_path), [taylor_fo(rounds=2, epochs=1)], f"{cost}=0.6x").results
    whole, small = (row[cost] for row in run["rows"][:2])
    assert small <= 0.6 * whole
    (half, end) = [line["costs"][cost] for line in run["lowest"]], run["rows"][1][cost]
    assert len(half) == 2 and len(run["training"]) == 2
    assert end <= 0.6 * whole
