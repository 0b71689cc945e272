"""AMC: an agent chooses the widths, the network is refitted and trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import penjing
from penjing.core.errors import PlanError
from penjing.methods.amc import amc
from tiny import pictures, skilled


@pytest.mark.parametrize("wrong", [{"trials": 0}, {"epochs": 0}], ids=str)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match=rf"amc: {next(iter(wrong))} must be 1 or more; got 0"):
        amc(**wrong)


def test_it_searches_within_the_budget_refits_and_trains(tmp_path: Path) -> None:
    run = penjing.run(skilled(), pictures(tmp_path), [amc(trials=3, epochs=1)], "macs=0.4x").results
    (search,) = run["searches"]
    assert search["allocator"] == "ddpg" and search["minimise"] == "error" and search["trials"] == 3
    assert run["rows"][1]["macs"] <= 0.4 * run["rows"][0]["macs"]
    made = [step if isinstance(step, str) else next(iter(step)) for step in amc()()]
    assert made == ["prune", "reconstruct", "recalibrate", "train"]
    assert len(run["training"]) == 1
