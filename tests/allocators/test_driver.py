"""The driver measures each plan once, remembers, goes on, and stops when told to."""

import json
import os
import signal
from itertools import accumulate

import numpy as np
import pytest

from penjing.allocators.abcpruner import abcpruner
from penjing.allocators.driver import Driver
from penjing.allocators.evolution import evolution
from penjing.allocators.problem import Problem
from penjing.allocators.random import random
from penjing.core import console
from penjing.core.errors import Infeasible, PlanError, ResumeError
from penjing.core.journal import Journal
from penjing.core.search import Bound
from penjing.core.sites import Site


def problem(seed=0, limit=20):
    sites = [Site(f"s{i}", "channels", n, (), np.arange(n)) for i, n in enumerate((12, 20, 8))]

    def price(plan):
        kept = {s.name: s.size for s in sites} | {e.site: len(e.kept) for e in plan}
        return {"macs": float(sum(kept.values()))}

    scores = {s.name: np.linspace(1, 2, s.size) for s in sites}
    return Problem("channels", sites, scores, [Bound("macs", limit, "half")], price, seed, minimise="error")


def error(plan):
    """Something that depends on the plan and nothing else; least where the first site is narrow."""
    return {e.site: len(e.kept) for e in plan}.get("s0", 12) + len(plan) / 10


class Crew:
    """Evaluates the last of a batch first, as workers may."""

    def __init__(self, stop_after=None):
        self.asked, self.stop_after, self.closed = [], stop_after, False

    def evaluate(self, plans):
        for i, plan in reversed(list(enumerate(plans))):
            if len(self.asked) == self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(plan.key)
            yield i, error(plan)

    def close(self):
        self.closed = True


def driver(crew, path=None):
    return Driver(Journal(path), "02-prune", lambda: crew)


def test_the_best_trial_is_chosen_and_each_plan_measured_once():
    crew = Crew()
    one = driver(crew)
    plan = one.run(random(trials=24), problem())
    assert len(one.trials) == 24 and len(set(crew.asked)) == len(crew.asked) <= 24
    assert error(plan) == min(error(trial.plan) for trial in one.trials)
    assert all(trial.meets(problem().bounds) for trial in one.trials)
    again = one.run(random(trials=24), problem())
    assert again.key == plan.key and len(crew.asked) == len(set(crew.asked)), "the second search asks nothing"
    assert one.told[0]["trials"] == 24 and one.told[0]["best"] == error(plan) and not one.told[0]["stopped"]
    one.close()
    assert crew.closed


@pytest.mark.parametrize(
    "search",
    [
        random(trials=20),
        abcpruner(sources=4, cycles=2, limit=1),
        evolution(population=6, iterations=2, parents=2, mutations=3, crossovers=3),
    ],
    ids=lambda search: type(search).__name__,
)
def test_a_search_that_goes_on_ends_the_same_from_every_prefix_of_its_journal(search, tmp_path):
    crew = Crew()
    path = tmp_path / "journal.jsonl"
    whole = driver(crew, path).run(search, problem())
    lines = path.read_text().splitlines(keepends=True)
    for known in range(len(lines) + 1):
        part = tmp_path / f"{known}.jsonl"
        part.write_text("".join(lines[:known]))
        rest = Crew()
        assert driver(rest, part).run(search, problem()).key == whole.key
        assert len(rest.asked) == len(lines) - known, "what is known is not measured again"


def test_a_search_that_asks_for_other_plans_than_before_is_refused(tmp_path):
    path = tmp_path / "journal.jsonl"
    driver(Crew(), path).run(random(trials=3), problem())
    with pytest.raises(ResumeError, match="trial 2 was of another plan"):
        driver(Crew(), path).run(random(trials=3), problem(seed=1))


def test_stopping_takes_the_best_so_far_and_a_run_that_goes_on_stops_there_again(tmp_path, capsys):
    path = tmp_path / "journal.jsonl"
    crew = Crew(stop_after=18)
    one = driver(crew, path)
    plan = one.run(random(trials=64), problem())
    assert len({trial.plan.key for trial in one.trials}) == 18 and one.told[0]["stopped"]
    assert error(plan) == min(error(trial.plan) for trial in one.trials)
    assert f"the search is stopped; the best of its {len(one.trials)} trials is taken" in capsys.readouterr().err
    fresh = Crew()
    assert driver(fresh, path).run(random(trials=64), problem()).key == plan.key and not fresh.asked


def test_two_searches_that_are_stopped_are_each_stopped_there_again(tmp_path):
    """As where the error alone is bounded: a search for each round of a bisection."""

    class Twice(Crew):
        def evaluate(self, plans):
            yield from list(super().evaluate(plans[-5:]))  # answered out of order, the others not at all
            raise KeyboardInterrupt

    def both(one):
        return [one.run(random(trials=64), problem(limit=limit)).key for limit in (20, 16)]

    path = tmp_path / "journal.jsonl"
    one = driver(Twice(), path)
    plans = both(one)
    assert [told["stopped"] for told in one.told] == [True, True]
    assert len({fact["plan"] for fact in one.facts.values()}) == len(one.facts) == 10
    fresh = Crew()
    again = driver(fresh, path)
    assert both(again) == plans and not fresh.asked
    assert again.facts == one.facts


def test_ctrl_c_while_a_trial_is_written_down_waits_until_it_is_known(tmp_path, monkeypatch):
    honest = Journal.note

    def note(self, event, **facts):
        honest(self, event, **facts)
        if str(facts.get("name")).endswith("trial 12"):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Journal, "note", note)
    path = tmp_path / "journal.jsonl"
    one = driver(Crew(), path)
    plan = one.run(random(trials=16), problem())
    assert one.told[0]["stopped"]
    monkeypatch.undo()
    fresh = Crew()
    assert driver(fresh, path).run(random(trials=16), problem()).key == plan.key and not fresh.asked


def test_stopping_before_anything_is_found_leaves_the_run(tmp_path):
    path = tmp_path / "journal.jsonl"
    with pytest.raises(KeyboardInterrupt):
        driver(Crew(stop_after=0), path).run(random(trials=4), problem())
    assert not path.exists()


def test_lines_of_the_journal_say_which_plan_had_which_error(tmp_path):
    path = tmp_path / "journal.jsonl"
    one = driver(Crew(), path)
    one.run(random(trials=2), problem())
    told = [json.loads(line) for line in path.read_text().splitlines()]
    values = {line["value"]["plan"]: line["value"]["error"] for line in told}
    assert values == {trial.plan.key: trial["error"] for trial in one.trials}


def test_the_first_random_plan_is_the_uniform_one_and_seeds_differ():
    one, two, three = (driver(Crew()) for _ in range(3))
    one.run(random(trials=8), problem(seed=0))
    two.run(random(trials=8), problem(seed=0))
    three.run(random(trials=8), problem(seed=1))
    keys = [[trial.plan.key for trial in d.trials] for d in (one, two, three)]
    assert keys[0] == keys[1] != keys[2] and keys[0][0] == keys[2][0]
    shares = [len(e.kept) / e.size for e in one.trials[0].plan]
    assert max(shares) - min(shares) < 0.15


@pytest.mark.parametrize(
    ("options", "named"), [({"trials": 0}, "trials"), ({"spread": -1}, "spread"), ({"floor": 1}, "floor")]
)
def test_options_that_cannot_be_are_refused(options, named):
    with pytest.raises(PlanError, match=f"random: {named}"):
        random(**options)


def test_a_budget_that_no_plan_keeps_is_refused_before_anything_is_measured():
    crew = Crew()
    with pytest.raises(Infeasible, match="lowest reachable"):
        driver(crew).run(random(), problem(limit=2))
    assert not crew.asked


def test_a_plan_fitted_to_other_bounds_keeps_its_proportions():
    p = problem(limit=30)
    plan = p.keep({"s0": 10, "s1": 10, "s2": 4})
    near = problem(limit=14).near(plan)
    counts = {e.site: len(e.kept) for e in near}
    assert sum(counts.values()) == 14 and counts["s0"] > counts["s2"] and abs(counts["s0"] - counts["s1"]) <= 2


def test_what_is_told_of_a_trial_says_the_best_so_far_also_where_a_batch_goes_on(tmp_path):
    """Killed in the middle of a batch, whose first trials are then known from the journal."""

    class Dies(Crew):
        def evaluate(self, plans):
            for number, answer in enumerate(super().evaluate(plans)):
                if number == 5:
                    raise MemoryError
                yield answer

    told = []
    with console.listening(told.append):
        with pytest.raises(MemoryError):
            driver(Dies(), tmp_path / "journal").run(random(trials=24), problem())
        driver(Crew(), tmp_path / "journal").run(random(trials=24), problem())
    trials = [event for event in told if event["event"] == "trial"]
    assert len({event["trial"] for event in trials}) == len(trials) > 16
    best = list(accumulate((event["costs"]["error"] for event in trials), min))
    assert [event["best"] for event in trials] == pytest.approx(best)
