"""What cuts lose and save, site by site: filed for every cut, and from a search's own trials where it made such."""

import json

import numpy as np
import pytest
import torch

from penjing.core.journal import Journal
from penjing.core.plan import Entry, Plan
from penjing.core.registry import build
from penjing.core.search import Trial
from penjing.data import load
from penjing.graph.trace import trace
from penjing.resume import go_on, keep
from penjing.rewrites.perform import perform
from penjing.steps.original import counted, drafted
from penjing.steps.prune import prune
from penjing.steps.sensitivity import apart
from penjing.steps.state import Run, State
from tiny import pictures, tiny

EXAMPLE = ((torch.zeros(2, 3, 8, 8),), {})


SEARCH = {
    "allocator": {"knapsack": {"loss": "measured"}},
    "measure": {"divergence": {"images": 24, "recalibrate": 0}},
}


def begun(folder, budget, data=None):
    """Return what a step is given, in a run that may go on."""
    run = Run(folder, budget, at="02-prune", journal=Journal(folder / "journal.jsonl"), resumable=True)
    return State(tiny(), tiny(), data, EXAMPLE), run


def cut(folder, budget, **options):
    """Take the step alone; return the state after it, and the book."""
    state, run = begun(folder, budget)
    return prune(criterion="l1", **options)(state, run), run.book


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load(pictures(tmp_path_factory.mktemp("pictures")), seed=0)


@pytest.fixture(scope="module")
def search(data, tmp_path_factory):
    """The state and the run after a cut that measured sites alone."""
    state, run = begun(tmp_path_factory.mktemp("run"), {"macs": "0.6x"}, data)
    return prune(criterion="l1", **SEARCH)(state, run), run


@pytest.fixture
def searched(search):
    return search[1].book


def test_every_site_of_a_cut_tells_what_it_loses_and_saves(tmp_path):
    _, book = cut(tmp_path, {"macs": "0.6x"})
    (found,) = book["sensitivity"]
    assert (found["step"], found["cost"]) == ("02-prune", "macs") and "whole" not in found
    assert {one["site"]: (one["size"], one["kept"]) for one in found["sites"]} == {
        line["site"]: (line["before"], line["after"]) for line in book["sites"]
    }
    for one in found["sites"]:
        whole = one["kept"] == one["size"]
        assert (one["lost"] == 0 and one["saves"] == 0) if whole else (0 < one["lost"] < one["score"])
        assert "measured" not in one
    assert any(one["kept"] < one["size"] for one in found["sites"])


def test_a_saving_is_what_comes_back_with_that_site(tmp_path):
    """Told by arithmetic; the networks that are cut so tell it too."""
    state, book = cut(tmp_path, {"macs": "0.5x"}, allocator="uniform")
    (plan,) = state.plans
    graph, changes = trace(tiny(), *EXAMPLE), {"channels": build("rewrite", "channels")}

    def macs(*entries):
        model = tiny()
        perform(model, graph, Plan(entries), changes)
        return counted(drafted(model, EXAMPLE))["macs"]

    saves = {one["site"]: one["saves"] for one in book["sensitivity"][0]["sites"]}
    assert len(plan) > 1
    for entry in plan:
        back = macs(*(other for other in plan if other is not entry)) - macs(*plan)
        assert saves[entry.site] == pytest.approx(back / macs()) and back > 0


def test_trials_of_single_sites_are_kept_with_what_the_whole_network_has(searched):
    (found,) = searched["sensitivity"]
    assert (found["minimise"], found["unit"]) == ("divergence", "nats")
    assert found["whole"] == pytest.approx(0, abs=1e-6), "nothing is as near to the original as itself"
    values = [trial["costs"]["divergence"] for trial in searched["trials"]]
    for one in found["sites"]:
        counts = [point["kept"] for point in one["measured"]]
        assert counts == sorted(set(counts)) and all(n < one["size"] for n in counts) and len(counts) > 1
        for point in one["measured"]:
            assert min(abs(found["whole"] + point["loss"] - value) for value in values) < 1e-6
        assert 0 <= one["expected"] <= max(point["loss"] for point in one["measured"]) + 1e-12
    assert any(one["expected"] > 0 for one in found["sites"])


def test_how_well_losses_foretold_is_filed_with_the_search(searched):
    (search,) = searched["searches"]
    (one,) = search["losses"]
    assert (one["by"], one["taken"], search["foretold"]) == ("measured", True, 8)
    assert -1 <= one["rank"] <= 1 and one["reached"] in [pytest.approx(search["best"])]


def test_what_is_filed_is_plain(searched):
    for name in ("sensitivity", "searches"):
        assert json.loads(json.dumps(searched[name])) == searched[name]


def test_a_search_that_was_killed_tells_the_same(data, searched, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    honest, trials = Journal.found, []

    def found(self, name, value):
        trials.append(name)
        if len(trials) == 5:
            raise Killed
        return honest(self, name, value)

    state, run = begun(tmp_path, {"macs": "0.6x"}, data)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "found", found)
        with pytest.raises(Killed):
            prune(criterion="l1", **SEARCH)(state, run)
    assert "sensitivity" not in run.book
    assert len((tmp_path / "journal.jsonl").read_text().splitlines()) == 4
    state, run = begun(tmp_path, {"macs": "0.6x"}, data)
    prune(criterion="l1", **SEARCH)(state, run)
    assert run.book["sensitivity"] == searched["sensitivity"]
    assert run.book["searches"][0]["losses"] == searched["searches"][0]["losses"]


def test_a_run_that_goes_on_behind_the_cut_has_it(data, search, tmp_path):
    state, run = search
    keep(state, run)
    _, later = begun(run.folder, {"macs": "0.6x"}, data)
    _, done = go_on(State(tiny(), tiny(), data, EXAMPLE), later, ["02-prune"])
    assert done == 1 and later.book["sensitivity"] == run.book["sensitivity"]


def test_without_a_bound_a_saving_is_in_macs(tmp_path):
    _, book = cut(tmp_path, {}, allocator={"threshold": {"k": 11.0}})
    (found,) = book["sensitivity"]
    assert found["cost"] == "macs" and any(one["saves"] > 0 for one in found["sites"])


def test_of_several_bounds_the_tightest_tells_the_saving(tmp_path):
    _, book = cut(tmp_path, {"macs": "0.95x", "params": "0.5x"})
    assert book["sensitivity"][0]["cost"] == "params"


def trial(value, **kept):
    return Trial(Plan(tuple(Entry("channels", site, np.arange(n), 8) for site, n in kept.items())), {"error": value})


def test_only_trials_of_one_site_tell_of_it_and_only_beside_the_whole():
    trials = [trial(9.0, a=4, b=4), trial(5.0, a=4), trial(7.0, a=2), trial(1.0, b=6), trial(6.0, a=4), trial(2.0)]
    assert apart(trials, "error") == (2.0, {"a": {4: 3.0, 2: 5.0}, "b": {6: -1.0}})
    assert apart(trials[:-1], "error") == (None, {})
