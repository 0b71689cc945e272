"""A frontier: the curve that a swept budget draws, what it shares between its points, and how it goes on."""

import json

import pytest
from typer.testing import CliRunner

import penjing
from penjing.cli import app
from penjing.core.errors import BudgetError, Infeasible
from penjing.steps.prune import prune
from penjing.steps.reconstruct import reconstruct
from penjing.steps.trial import Attempt
from penjing.sweep import shares_of
from tiny import pictures, skilled

SHARES = [0.8, 0.5, 0.3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def model():
    return skilled()


@pytest.fixture
def counted(monkeypatch):
    """Count how often units are scored and cuts are recovered."""
    calls = {"scored": 0, "recovered": 0}
    for name, kind, method in (("scored", prune, "score"), ("recovered", reconstruct, "__call__")):
        original = getattr(kind, method)

        def counting(self, *given, _original=original, _name=name):
            calls[_name] += 1
            return _original(self, *given)

        monkeypatch.setattr(kind, method, counting)
    return calls


def test_a_curve_has_a_point_a_share_and_reads_no_test_picture(folder, model, counted):
    data = penjing.data.load(folder)
    found = penjing.frontier(model, data, "macs", SHARES)
    assert [point.asked for point in found.points] == ["0.8x", "0.5x", "0.3x"] and not found.refused
    costs = [found.original.cost, *(point.cost for point in found.points)]
    assert costs == sorted(costs, reverse=True) and costs[-1] <= 0.3 * costs[0]
    assert all(point.predicted == point.cost and 0 <= point.accuracy <= 100 for point in found.points)
    assert counted == {"scored": 1, "recovered": 3} and data.test_reads == 0
    assert found.facts["where"] == "counted on the cut network"


def test_latency_is_measured_and_energy_is_the_models(folder, model):
    timed = penjing.frontier(model, folder, "latency", [0.95])
    assert timed.facts["where"] == "measured on onnxruntime" and 0 < timed.points[0].cost < timed.original.cost
    told = penjing.frontier(model, folder, "energy", [0.7], target="eyeriss_v1")
    assert told.unit == "mJ" and told.facts["where"] == "by the model of eyeriss_v1"
    assert told.points[0].cost <= 0.7 * told.original.cost


def test_what_a_search_measured_is_known_at_the_next_share(folder, model, monkeypatch):
    measured, call = [], Attempt.__call__

    def noting(self, plan):
        measured.append(plan.key)
        return call(self, plan)

    monkeypatch.setattr(Attempt, "__call__", noting)
    step = {"knapsack": {"loss": "measured", "trials": 60}}
    once = penjing.frontier(model, folder, "macs", SHARES[:1], allocator=step)
    first = len(measured)
    measured.clear()
    found = penjing.frontier(model, folder, "macs", SHARES, allocator=step)
    assert len(set(measured)) == len(measured) < 3 * first
    assert found.points[0].widths == once.points[0].widths


def test_a_sweep_that_was_stopped_goes_on(folder, model, counted, tmp_path, monkeypatch):
    from penjing import sweep

    whole = penjing.frontier(model, folder, "macs", SHARES)
    tried, judged = sweep._tried, []

    def killed(*given):
        judged.append(given[3])
        if len(judged) == 2:
            raise KeyboardInterrupt
        return tried(*given)

    monkeypatch.setattr(sweep, "_tried", killed)
    with pytest.raises(KeyboardInterrupt):
        penjing.frontier(model, folder, "macs", SHARES, folder=tmp_path)
    monkeypatch.setattr(sweep, "_tried", tried)
    counted.update(scored=0, recovered=0)
    again = penjing.frontier(model, folder, "macs", SHARES, folder=tmp_path)
    assert counted == {"scored": 1, "recovered": 2}
    assert [(p.cost, p.accuracy, p.widths) for p in again.points] == [
        (p.cost, p.accuracy, p.widths) for p in whole.points
    ]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["frontier.json", "frontier.svg"]


def test_the_first_share_out_of_reach_ends_the_sweep_and_none_is_an_error(folder, model):
    found = penjing.frontier(model, folder, "macs", [0.5, 1e-5])
    assert len(found.points) == 1 and "lowest reachable" in found.refused["1e-05x"] and "1e-05x" in str(found)
    with pytest.raises(Infeasible, match="No share that was asked for can be reached"):
        penjing.frontier(model, folder, "macs", [1e-5])


@pytest.mark.parametrize(
    ("given", "message"),
    [([], "needs shares"), (["2M"], "is no share"), ([1.5], "asks for nothing"), (["many"], "is not a bound")],
)
def test_what_is_no_share_is_refused(given, message):
    with pytest.raises(BudgetError, match=message):
        shares_of("macs", given)


def test_the_shell_prints_the_curve_and_writes_it(folder, tmp_path):
    words = ["frontier", "tiny:skilled", str(folder), "--cost", "macs", "--shares", "0.6,0.4", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "0.6x" in done.stdout and "frontier.svg" in done.stdout
    assert (tmp_path / "frontier.svg").read_text().startswith("<svg xmlns")
    done = CliRunner().invoke(app, [*words, "--json"])
    assert [point["asked"] for point in json.loads(done.stdout)["points"]] == ["0.6x", "0.4x"]
