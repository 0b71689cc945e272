"""Exits as a step: trained, chosen by what was measured, exported, told, and kept over an interruption."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import penjing
from penjing.core.errors import PenjingError, PlanError, TrainError
from penjing.core.journal import Journal
from penjing.data import load
from penjing.data.data import Data
from penjing.exporting.measure import Timing
from penjing.graph.exits import Exiting
from penjing.resume import go_on, keep
from penjing.steps.exits import exits, listen, macs_at, outcome_of
from penjing.steps.on_average import averaged
from penjing.steps.order import ordered
from penjing.steps.state import Run, State
from penjing.training.evaluate import evaluate
from staged import leaving, staged
from tiny import pictures, tiny

STEP = exits(epochs=4, lr=0.05, batch=16, images=8, terms=())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return load(pictures(tmp_path_factory.mktemp("data")), seed=0, val=30)


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let leaving early save time on any machine; a network so small is hardly faster for it."""

    measured = Run.measure

    def measure(self: Run, what: str, subjects: Any, limit: float | None = None) -> dict[str, Timing]:
        if not what.startswith(("leaving", "stopping")):
            return measured(self, what, subjects, limit)
        ms = {"plain": 9.0, "leave 0": 3.0, "leave 1": 6.0, "leave 2": 10.0, "without 0": 9.5, "without 1": 9.5}
        ms |= {"whole": 9.0, "early": 5.0}
        rest = (1, 1, "cpu", "onnxruntime", "none")
        return {name: Timing(*[ms[name]] * 4, (ms[name],) * 5, *rest) for name in subjects}

    monkeypatch.setattr(Run, "measure", measure)


def begun(data: Data | None, folder: Path, model: nn.Module | None = None) -> tuple[State, Run]:
    model, x = model or staged(), torch.zeros(2, 3, 8, 8)
    return State(model, staged(), data, ((x,), {})), Run(folder)


def test_exits_are_kept_and_chosen_on_validation(data: Data, tmp_path: Path, priced: None) -> None:
    state, run = begun(data, tmp_path)
    state = replace(STEP, drop=10.0)(state, run)
    model, (facts,) = state.model, run.noted("exits")
    assert isinstance(model, Exiting) and facts["pictures"] == 30 and facts["measured_on"] == 8
    kept = {one["layer"]: one["threshold"] for one in facts["exits"] if one["threshold"] is not None}
    assert (tuple(kept), tuple(kept.values())) == (model.places, model.thresholds)
    end = evaluate(model.network, data.val).accuracy
    assert facts["end"]["accuracy"] == pytest.approx(end)
    assert facts["early"] == pytest.approx(evaluate(model, data.val).accuracy) and facts["early"] >= end - 10
    told = listen(model, data)
    assert [one["accuracy"] for one in facts["exits"] if one["threshold"] is not None] == told.accuracies[:-1]
    assert sum(facts["shares"]) == pytest.approx(1) and facts["expected_ms"] < 9
    macs = macs_at(model, state.example[0][0])
    shares = [one["share"] for one in facts["exits"] if one["threshold"] is not None] + [facts["end"]["share"]]
    assert facts["macs"] == pytest.approx(np.dot(macs, shares))
    assert averaged({"macs": 1.0, "params": 2.0}, model, run) == {"macs": facts["macs"], "params": 2.0}
    assert run.noted("remarks") == [outcome_of(facts)] and f"{facts['early']:.2f} % right" in outcome_of(facts)


def test_macs_are_those_of_what_ran() -> None:
    layer1, layer2, layer3 = 162 * 64 + 324 * 64, 432 * 16 + 576 * 16, 864 * 4
    first = (54 + 36) * 16 + (54 + 48) * 16 + (72 + 64) * 4 + (72 + 96) * 4 + 36
    second = (72 + 64) * 4 + (72 + 96) * 4 + 36
    expected = [layer1 + first, layer1 + first + layer2 + second, layer1 + first + layer2 + second + layer3 + 36]
    assert macs_at(leaving(), torch.zeros(2, 3, 8, 8)) == expected


def test_a_network_goes_on_without_exits_that_save_nothing(data: Data, tmp_path: Path) -> None:
    """Asking costs more than such a network has left to compute, on every machine."""
    state, run = begun(data, tmp_path, tiny().eval())
    state = exits(epochs=1, batch=16, images=4, layers=("bn1",), alpha=1.0, terms=())(state, run)
    (facts,) = run.noted("exits")
    if isinstance(state.model, Exiting):  # where it does save something, it is told so
        assert facts["ratio"]["median"] > 0
    else:
        assert "goes on without them" in outcome_of(facts) and averaged({"macs": 1.0}, state.model, run) == {
            "macs": 1.0
        }


def test_a_run_with_exits_is_exported_checked_reported_and_loaded(data: Data, tmp_path: Path, priced: None) -> None:
    steps = [{"prune": {"criterion": "l1"}}, replace(STEP, drop=60.0), "export", "check"]
    done = penjing.run(staged(), data, steps, "macs=0.9x", folder=tmp_path / "run")
    model, (facts,) = done.model, done.results["exits"]
    assert isinstance(model, Exiting)
    x = torch.cat([x for x, _ in data.val.batches(8)])
    again = penjing.load(tmp_path / "run", staged)
    assert torch.equal(again(x), model(x)) and again.places == model.places
    row = done.results["rows"][1]
    assert row["macs"] == facts["macs"] < done.results["rows"][0]["macs"] and row["accuracy"] is not None
    certificates = {one["name"]: one["ok"] for one in done.results["certificates"]}
    assert certificates["torch equals ONNX"] and certificates["cut equals zeroed"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Answering early" in page and "behind layer1" in page and "averages" in page
    json.dumps(done.results)


def test_the_network_is_there_again_where_a_run_goes_on(data: Data, tmp_path: Path, priced: None) -> None:
    state, run = begun(data, tmp_path)
    run.resumable, run.at, run.journal = True, "02-exits", Journal(tmp_path / "journal.jsonl")
    done = replace(STEP, epochs=1, drop=90.0)(state, run)
    keep(done, run)
    again, count = go_on(*begun(data, tmp_path), ["01-evaluate", "02-exits"])
    x = torch.randn(8, 3, 8, 8)
    assert count == 2 and isinstance(again.model, Exiting) and torch.equal(again.model(x), done.model(x))


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"drop": -1.0}, PlanError, r"exits: drop is in points of accuracy, 0 or more; got -1"),
        ({"images": 0}, PlanError, r"exits: images must be a whole number"),
        ({"temperature": -1.0}, TrainError, r"temperature must be above 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], kind: type[PenjingError], says: str) -> None:
    with pytest.raises(kind, match=says):
        exits(**options)


def test_what_cannot_have_exits_is_refused_before_any_training(data: Data, tmp_path: Path) -> None:
    state, run = begun(data, tmp_path)
    with pytest.raises(PlanError, match=r"takes one picture at a time; set batch to 1, not 4"):
        STEP(state, replace(run, batch=4))
    with pytest.raises(PlanError, match=r"on ONNX Runtime alone, and the target is eyeriss_v1"):
        STEP(state, replace(run, target=penjing.targets.find("eyeriss_v1")))
    with pytest.raises(PlanError, match=r"one size alone"):
        STEP(*begun(data, tmp_path, tiny().eval()))
    with pytest.raises(PlanError, match=r"needs data"):
        STEP(*begun(None, tmp_path))
    with pytest.raises(PlanError, match=r"has exits already.*model\.network"):
        penjing.run(leaving(), data, ["evaluate"])


def test_references_are_refused(data: Data) -> None:
    with pytest.raises(PlanError, match=r"reference 'random'.*before the step exits"):
        penjing.run(staged(), data, ["exits"], references=["random"])


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        (["exits", "prune"], r"prune: exits come last.*What may follow exits: export, check, evaluate"),
        (["exits", "train"], r"train: exits come last"),
        (["exits", "int8", "export"], r"int8: ONNX Runtime quantizes no file that stops early"),
        (["exits", "exits"], r"exits: the network has exits already"),
    ],
)
def test_exits_come_last(steps: list[str], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        ordered(steps)
    assert ordered(["prune", "train", {"quantize": {"method": "lsq", "bits": 4}}, "exits", "export", "check"])
