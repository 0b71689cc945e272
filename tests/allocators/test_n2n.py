"""Network to network: its reward, its constraints, its stages, and that it learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penjing.allocators.driver import Driver
from penjing.allocators.n2n import MULTIPLIERS, Judge, economy, n2n, punished, softness
from penjing.allocators.policy import Policy
from penjing.allocators.problem import Problem
from penjing.core.errors import Infeasible, PlanError
from penjing.core.journal import Journal
from penjing.core.plan import Plan
from penjing.core.search import Bound, Trial
from penjing.core.sites import Site
from penjing.core.units import Floats
from penjing.workers import Here

from .searching import bowl, counts_of, played, problem


def blocky(share: float, blocks: int = 4, seed: int = 0) -> Problem:
    """Channels beside blocks: a block costs 50, a chain of three layers the product of neighbours."""
    asked = problem(3, 20, share=share, seed=seed)
    more = [Site(f"b{i}", "layers", 1, (), np.arange(0), least=0, rewrite="layers") for i in range(blocks)]
    whole = asked.price(Plan())["macs"] + 50 * blocks

    def price(plan: Plan) -> Mapping[str, float]:
        narrowed = Plan(tuple(entry for entry in plan if entry.rewrite == "channels"))
        return {"macs": asked.price(narrowed)["macs"] + 50 * (blocks - len(plan.of_rewrite("layers")))}

    scores = {**asked.scores, **{site.name: np.ones(1) for site in more}}
    sites = [*(replace(site, rewrite="channels") for site in asked.sites), *more]
    bounds = [Bound("macs", share * whole, f"{share}x")]
    return Problem("channels and layers", sites, scores, bounds, price, seed=seed, minimise="error")


def test_saving_is_worth_less_and_less() -> None:
    assert [economy(c) for c in (0.5, 0.9, 1.0)] == pytest.approx([0.75, 0.99, 1.0])


def test_a_broken_constraint_is_forgiven_at_first_and_never_later() -> None:
    assert [softness(e) for e in (0, 15, 99)] == [1.0, 0.0, 0.0]
    assert punished(0.6, softness(0)) == pytest.approx(0.6) and punished(0.6, softness(15)) == -1.0


@pytest.mark.parametrize(
    ("minimise", "value", "kept"), [("error", 28.0, 0.8), ("divergence", 2.0, np.exp(-1.0)), ("error", np.nan, None)]
)
def test_what_is_lost_and_what_is_saved_make_the_reward(minimise: str, value: float, kept: float | None) -> None:
    asked = replace(problem(3, 20, share=0.5), minimise=minimise)
    whole = Trial(Plan(), {"macs": 1000.0, minimise: 10.0 if minimise == "error" else 0.0})
    judge = Judge(asked, 0.0, whole)
    judge.see([Trial(Plan(), {"macs": 500.0, minimise: loss}) for loss in (1.0, 3.0)])
    found = judge(Trial(Plan(), {"macs": 500.0, minimise: value}))
    assert found == pytest.approx(-1.0 if kept is None else 0.75 * kept)


def test_the_tightest_bound_is_what_saving_is_counted_in() -> None:
    bounds = [Bound("macs", 500.0, "0.5x"), Bound("params", 10.0, "0.1x")]
    asked = replace(problem(2, 20), bounds=bounds, minimise="error")
    judge = Judge(asked, 0.0, Trial(Plan(), {"macs": 1000.0, "params": 100.0, "error": 0.0}))
    assert judge(Trial(Plan(), {"macs": 1000.0, "params": 10.0, "error": 0.0})) == pytest.approx(0.99)


def test_channels_alone_are_narrowed_by_the_multipliers_of_the_paper() -> None:
    asked = replace(problem(4, 40, share=0.5), minimise="error")
    chosen, batches, _ = played(n2n(updates=5), asked, bowl(np.full(4, 40), 40))
    assert batches[0][0].tolist() == [40] * 4, "the original is measured first"
    drawn = np.concatenate(batches[1:])
    assert set((drawn / 40).ravel().tolist()) <= set(MULTIPLIERS)
    assert asked.fits(asked.keep({s.name: int(n) for s, n in zip(asked.sites, chosen, strict=True)}))


def test_of_channels_and_blocks_blocks_go_first_and_what_is_gone_stays_gone() -> None:
    asked = blocky(0.5)
    chosen, batches, _ = played(n2n(updates=20), asked, lambda counts: 10.0 + float((counts[3:] == 0)[:2].sum()))
    stage = [i for i, batch in enumerate(batches) if all((counts[:3] == 20).all() for counts in batch)]
    assert stage == list(range(21)), "the original, then a batch an update"
    later = {tuple(counts[3:].tolist()) for batch in batches[21:] for counts in batch}
    assert len(later) == 1 and {tuple(chosen[3:].tolist())} == later
    assert asked.fits(asked.keep({s.name: int(n) for s, n in zip(asked.sites, chosen, strict=True)}))


def test_what_lies_within_a_block_that_goes_is_not_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    decided: list[int] = []

    class Counting(Policy):
        def __init__(self, features: Floats, *args: Any, **options: Any) -> None:
            decided.append(len(features))
            super().__init__(features, *args, **options)

    monkeypatch.setattr("penjing.allocators.n2n.Policy", Counting)
    asked = blocky(0.45)
    asked = replace(asked, sites=[replace(s, within="b0") if s.name == "s1" else s for s in asked.sites])
    loss = lambda counts: 10.0 + 30.0 * float(counts[3] > 0)  # noqa: E731  (the outer block is the one to lose)
    chosen, _, __ = played(n2n(updates=20), asked, loss)
    assert chosen[3] == 0 and decided == [4, 2]


def test_blocks_alone_are_removed_until_the_bound_holds() -> None:
    both = blocky(0.5)
    asked = replace(both, sites=both.sites[3:], bounds=[Bound("macs", both.price(Plan())["macs"] - 99, "x")])
    loss = lambda counts: 5.0 * counts[2] + 20.0 * (4 - counts.sum())  # noqa: E731  (the third is the one to lose)
    chosen, _, __ = played(n2n(updates=30), asked, loss)
    assert chosen.sum() <= 2 and chosen[2] == 0


def test_a_site_that_must_stay_is_never_removed() -> None:
    """A block of one unit that may not go is a site like any other, and its fewest is itself."""
    asked = blocky(0.6)
    fixed = Site("fixed", "layers", 1, (), np.arange(0), least=1, rewrite="layers")
    asked = replace(asked, sites=[*asked.sites, fixed], scores={**asked.scores, "fixed": np.ones(1)})
    _, batches, __ = played(n2n(updates=40), asked, lambda counts: 10.0)
    assert all(counts[-1] == 1 for batch in batches for counts in batch)


def test_plans_beyond_the_budget_are_measured_only_while_they_count() -> None:
    asked = replace(problem(4, 40, share=0.1), minimise="error")
    search: Any = n2n(updates=40, rollouts=4)(asked)
    plans, broken, asked_about = next(search), [], 0
    while True:
        broken.append(sum(not asked.fits(plan) for plan in plans))
        asked_about += len(plans)
        try:
            plans = search.send([Trial(plan, {**asked.price(plan), "error": 50.0}) for plan in plans])
        except StopIteration as end:
            assert asked.fits(end.value)
            break
    assert sum(broken[1:16]) > 0 and sum(broken[16:]) == 0
    assert asked_about < n2n(updates=40, rollouts=4).trials


def test_a_budget_out_of_reach_of_the_multipliers_is_met_by_scaling() -> None:
    asked = replace(problem(4, 40, share=0.03), minimise="error")
    chosen, batches, _ = played(n2n(updates=16), asked, bowl(np.full(4, 40), 40))
    assert asked.fits(asked.keep({s.name: int(n) for s, n in zip(asked.sites, chosen, strict=True)}))
    assert batches[-1][0].tolist() == chosen.tolist() and asked.said


def test_an_accuracy_that_must_stay_is_a_constraint() -> None:
    def loss(counts: np.ndarray) -> float:
        return 100.0 - float(counts.mean()) * 2.5

    asked = replace(problem(4, 40, share=0.9), minimise="error")
    chosen, _, __ = played(n2n(updates=20, accuracy=0.7), asked, loss)
    free, _, __ = played(n2n(updates=20), asked, loss)
    assert chosen.mean() >= 0.7 * 40 > free.mean()
    with pytest.raises(PlanError, match=r"accuracy bounds .* judged by divergence"):
        played(n2n(accuracy=0.9), replace(asked, minimise="divergence"), loss)


def test_it_learns_what_pays() -> None:
    """Late plans are rewarded more than those of chance, and the best found is better than chance's best."""
    best = np.array([40, 10, 40, 10, 40, 10])

    def rewards(lr: float) -> list[float]:
        asked = replace(problem(6, 40, share=0.6), minimise="error")
        loss = lambda counts: 2 * float(np.abs(counts - best).mean())  # noqa: E731
        _, batches, losses = played(n2n(updates=80, lr=lr), asked, loss)
        plans = [[asked.keep({f"s{i}": int(n) for i, n in enumerate(counts)}) for counts in one] for one in batches]
        trials = [
            Trial(plan, {**asked.price(plan), "error": error})
            for one in zip(plans, losses, strict=True)
            for plan, error in zip(*one, strict=True)
        ]
        judge = Judge(asked, 0.0, trials[0])
        return [judge(trial) for trial in trials[1:] if asked.fits(trial.plan)]

    learned, chance = rewards(0.003), rewards(1e-9)
    assert np.mean(learned[-30:]) > np.mean(chance) + 0.1
    assert max(learned) > max(chance)


def test_it_repeats_itself_and_goes_on_after_it_was_killed(tmp_path: Path) -> None:
    def run(path: Path | None, seed: int = 0) -> tuple[str, list[str]]:
        asked = blocky(0.5, seed=seed)
        error = lambda plan: float(np.abs(np.array(counts_of(list(asked.sites), plan)) - 8).sum())  # noqa: E731
        driver = Driver(Journal(path), "02-prune", lambda: Here(error))
        return driver.run(n2n(updates=8), asked).key, [trial.plan.key for trial in driver.trials]

    whole = run(tmp_path / "whole.jsonl")
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "killed.jsonl").write_text("".join(lines[:12]))
    assert whole == run(None) == run(tmp_path / "killed.jsonl") != run(None, seed=1)


def test_what_cannot_be_reached_is_refused_before_anything_is_measured() -> None:
    with pytest.raises(Infeasible):
        next(n2n()(problem(3, share=1e-6)))  # type: ignore[call-overload]
    with pytest.raises(PlanError, match=r"'n2n' needs a budget"):
        next(n2n()(problem(3)))  # type: ignore[call-overload]


@pytest.mark.parametrize("options", [{"updates": 0}, {"rollouts": 0}, {"lr": 0.0}, {"accuracy": 1.5}], ids=str)
def test_what_cannot_be_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match=f"n2n: {next(iter(options))} "):
        n2n(**options)
