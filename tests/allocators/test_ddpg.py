"""The search by reinforcement: that it learns, repeats itself, goes on, and takes what pays most."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from penjing.allocators.ddpg import ddpg
from penjing.allocators.driver import Driver
from penjing.allocators.problem import Problem
from penjing.core.errors import PlanError
from penjing.core.journal import Journal
from penjing.core.plan import Plan
from penjing.core.search import Bound, Trial
from penjing.core.sites import Site
from penjing.core.units import Floats
from penjing.workers import Here

COSTS = np.array([0.55, 0.3, 0.15])


class Toy:
    """Removing a share x of site l costs c_l x²: the best plan is known, by filling up with water."""

    def __init__(self, share: float = 0.5, size: int = 60) -> None:
        self.sites = [Site(f"s{i}", "channels", size, (), np.arange(size)) for i in range(len(COSTS))]
        self.share, self.size = share, size
        self.measured = 0

    def kept(self, plan: Plan) -> Floats:
        kept = {site.name: site.size for site in self.sites} | {entry.site: len(entry.kept) for entry in plan}
        return np.array([kept[site.name] / site.size for site in self.sites])

    def error(self, plan: Plan) -> float:
        self.measured += 1
        return float((COSTS * (1 - self.kept(plan)) ** 2).sum())

    def problem(self, seed: int = 0) -> Problem:
        scores = {site.name: np.linspace(2, 1, site.size) for site in self.sites}
        bound = Bound("params", self.share * self.size * len(COSTS), "half")
        price = lambda plan: {"params": float(self.kept(plan).sum() * self.size)}  # noqa: E731
        return Problem("channels", self.sites, scores, [bound], price, seed, minimise="error")

    def run(self, allocator: ddpg, seed: int = 0, path: Path | None = None) -> tuple[Plan, Driver]:
        driver = Driver(Journal(path), "02-prune", lambda: Here(self.error))
        return driver.run(allocator, self.problem(seed)), driver

    def least(self) -> float:
        """The least error within the bound: where x_l is in proportion to 1 / c_l, and at most 1."""
        low, high = 0.0, 1.0
        for _ in range(60):
            level = (low + high) / 2
            gone = np.minimum(level / COSTS, 1.0)
            low, high = (low, level) if gone.sum() > len(COSTS) * (1 - self.share) else (level, high)
        return float((COSTS * gone**2).sum())


def test_it_learns_a_game_whose_best_is_known() -> None:
    toy = Toy()
    plan, driver = toy.run(ddpg(trials=120, floor=0.02))
    errors = np.array([trial["error"] for trial in driver.trials])
    best = 1 - toy.least()
    assert len(errors) == 120 and 1 - toy.error(plan) >= 0.98 * best
    assert np.mean(errors[-20:]) < np.mean(errors[:30]) - np.std(errors[:30]) / 2, "the actor beats chance"


def test_a_search_repeats_itself_and_seeds_differ() -> None:
    short = ddpg(trials=20, together=3)
    (one, first), (other, second) = Toy().run(short), Toy().run(short)
    assert one.key == other.key
    assert [t.plan.key for t in first.trials] == [t.plan.key for t in second.trials]
    assert [t.plan.key for t in Toy().run(short, seed=1)[1].trials] != [t.plan.key for t in first.trials]


@pytest.mark.parametrize("lines", [2, 18])
def test_a_search_that_was_killed_goes_on_to_the_same_end(lines: int, tmp_path: Path) -> None:
    """In the warm-up, and where the agent has learned; what it knew is learned anew from the journal."""
    short = ddpg(trials=20)
    plan, whole = Toy().run(short, path=tmp_path / "whole.jsonl")
    written = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "killed.jsonl").write_text("".join(written[:lines]))
    torch.rand(5)
    toy = Toy()
    again, driver = toy.run(short, path=tmp_path / "killed.jsonl")
    assert again.key == plan.key and toy.measured == len({t.plan.key for t in whole.trials}) - lines
    assert [t.plan.key for t in driver.trials] == [t.plan.key for t in whole.trials]


def test_the_warm_up_is_asked_about_together_and_the_rest_as_many_as_are_wanted() -> None:
    search: Any = ddpg(trials=45, warmup=0.5, together=10)(Toy().problem())
    asked, plans = [], next(search)
    toy, problem = Toy(), Toy().problem()
    with pytest.raises(StopIteration):
        while True:
            asked.append(len(plans))
            plans = search.send([Trial(p, {**problem.price(p), "error": toy.error(p)}) for p in plans])
    assert asked == [16, 6, 10, 10, 3]


def test_the_guaranteed_reward_pays_for_cutting_further() -> None:
    toy = Toy(share=0.9)
    plan, driver = toy.run(ddpg(trials=12, reward="guaranteed"))
    paid = [-trial["error"] * math.log(trial["params"] * max(1.0, 1000 / (0.9 * 180))) for trial in driver.trials]
    assert plan.key == driver.trials[int(np.argmax(paid))].plan.key


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"trials": 0}, "trials must be 1 or more"),
        ({"together": 0}, "together must be 1 or more"),
        ({"warmup": 1.5}, "warmup is a share of the trials"),
        ({"floor": 1.0}, "floor is the share that a site keeps"),
        ({"reward": "money"}, "reward is one of budget, guaranteed"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        ddpg(**wrong)
