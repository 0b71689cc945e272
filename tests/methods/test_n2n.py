"""N2N: policies choose a student, which is taught."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import penjing
from penjing.core.errors import PlanError
from penjing.methods.n2n import n2n
from tiny import pictures, skilled


@pytest.mark.parametrize("wrong", [{"updates": 0}, {"rollouts": 0}, {"taught": 0}, {"epochs": 0}], ids=str)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match=rf"n2n: {next(iter(wrong))} must be 1 or more; got 0"):
        n2n(**wrong)


def test_students_are_taught_measured_and_the_best_is_trained(tmp_path: Path) -> None:
    method = n2n(updates=1, rollouts=2, taught=1, images=32, epochs=1)
    run = penjing.run(skilled(), pictures(tmp_path), [method], "params=0.7x").results
    (search,) = run["searches"]
    assert search["allocator"] == "n2n" and search["minimise"] == "tuned_error" and 3 <= search["trials"] <= 5
    assert run["rows"][1]["params"] <= 0.7 * run["rows"][0]["params"]
    assert len(run["training"]) == 1
