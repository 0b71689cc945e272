"""Where the time of a real run goes: all of it, on a runtime and by a model."""

import pytest
import torch
from torch import nn

import penjing
from penjing.core.errors import PlanError
from penjing.exporting.onnx import export_onnx
from penjing.steps import spending as module
from penjing.steps.factorize import factorize
from penjing.steps.original import drafted
from penjing.steps.prune import prune
from penjing.steps.quantize import quantize
from penjing.steps.sides import Pair, Side
from penjing.steps.state import Run, State
from tiny import TinyNet

EXAMPLE = torch.randn(2, 3, 8, 8)
SECONDS = module.SECONDS


@pytest.fixture(autouse=True)
def timed_by_layer(monkeypatch):
    monkeypatch.setattr(module, "SECONDS", SECONDS)


class Twice(nn.Module):
    """One layer that runs twice, the second time on a quarter of the positions."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.head = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 16, 3, 1, 1), nn.Linear(16, 3)

    def forward(self, x):
        x = torch.relu(self.conv(torch.relu(self.stem(x))))
        x = torch.relu(self.conv(nn.functional.max_pool2d(x, 2)))
        return self.head(x.mean((2, 3)))


def total(found: dict, side: str) -> float:
    """Add up all the times of one side."""
    layers = [one[side] for one in found["layers"] if one[side]]
    times = [one["predicted_ms"] if one["measured_ms"] is None else one["measured_ms"] for one in layers]
    return sum(times) + sum(one[f"{side}_ms"] for one in found["others"])


def test_measured_times_add_up_to_the_latency(tmp_path, unhurried):
    steps = [prune(criterion="l1"), "export", "check"]
    with unhurried():  # the quick exporter names no layers
        result = penjing.run(TinyNet(64), None, steps, "macs=0.5x", example=EXAMPLE, folder=tmp_path / "run")
    found, (original, small) = result.results["spending"], result.results["rows"]
    assert found["how"] == "measured" and found["on"] == "onnxruntime"
    for side, row in (("before", original), ("after", small)):
        assert total(found, side) == pytest.approx(row["latency"]["median_ms"], rel=1e-6)
        assert found[f"{side}_macs"] == row["macs"]
    by_name = {one["name"]: one for one in found["layers"]}
    assert set(by_name) == {"stem", "conv1", "conv2", "linear"}
    assert by_name["conv1"]["after"]["out_channels"] == result.model.conv1.out_channels
    assert by_name["conv1"]["before"]["predicted_ms"] > 0
    assert "Layers, by the time lost" in str(penjing.explain(tmp_path / "run"))


@pytest.fixture
def alone(tmp_path):
    """Return what tells the spending of a network that nothing was cut from."""

    def told(model):
        model = model.eval()
        run, state = Run(tmp_path), State(model, model, None, ((EXAMPLE,), {}))
        file = export_onnx(model, (EXAMPLE,), {}, tmp_path / "model.onnx", quick=True)
        timing, draft = run.measure("it", {"it": file})["it"], drafted(model, state.example)
        return module.spending(state, run, (draft, draft), (file, file), (timing, timing))

    return told


def test_no_seconds_no_predictions(alone, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.0)
    found = alone(Twice())
    halves = [half for one in found["layers"] for half in (one["before"], one["after"])]
    assert halves and all(half["predicted_ms"] is None and half["measured_ms"] > 0 for half in halves)
    assert "no cause found" not in [one["cause"] for one in found["findings"]], "what was not timed may have told"


def test_of_uncut_layers_nothing_is_predicted_and_what_has_to_stay_is_known(alone, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "slow", lambda pairs, setting: seen.extend(pairs) or [])
    assert all(one["after"]["predicted_ms"] is None for one in alone(Twice())["layers"])
    fixed = {one.name: (one.after.reads_fixed, one.after.writes_fixed) for one in seen}
    free = (False, False)
    assert fixed == {"stem": (True, False), "conv": free, "conv #2": free, "head": (False, True)}


def test_a_model_tells_each_layer_and_what_bounds_it():
    result = penjing.run(
        TinyNet(32), None, [prune(criterion="l1"), "export", "check"], "latency=0.8x", example=EXAMPLE,
        target="eyeriss_v1",
    )  # fmt: skip
    found, rows = result.results["spending"], result.results["rows"]
    assert found["how"] == "modelled" and found["on"] == "eyeriss_v1"
    for side, row in (("before", rows[0]), ("after", rows[1])):
        assert total(found, side) == pytest.approx(row["target"]["latency"])
        assert found[f"{side}_ms"] == pytest.approx(row["target"]["latency"])
    halves = [one["after"] for one in found["layers"]]
    assert all(half["measured_ms"] is None and half["energy_mj"] > 0 and half["bound"] for half in halves)


def test_a_runtime_without_a_profile_is_told_whole(alone, monkeypatch):
    def refuse(subject, **how):
        raise PlanError("it tells no times of single layers.")

    monkeypatch.setattr(module, "profile", refuse)
    found = alone(Twice())
    assert found["how"] == "whole" and found["layers"] == [] and "no times of single layers" in found["note"]
    assert found["before_ms"] > 0


def test_a_layer_that_runs_twice_has_two_rows(alone):
    found = alone(Twice())
    rows = {one["name"]: one for one in found["layers"]}
    assert set(rows) == {"stem", "conv", "conv #2", "head"}
    assert rows["conv"]["after"]["macs"] == 4 * rows["conv #2"]["after"]["macs"]
    assert total(found, "after") == pytest.approx(found["after_ms"])
    assert found["uncut"] == list(rows)


def test_what_is_known_is_not_measured_again(monkeypatch):
    from penjing.core.journal import Journal
    from penjing.targets import default

    class Before:
        journal, target = Journal(), default()

    Before.journal.found("where the time goes", {"how": "measured"})
    monkeypatch.setattr(module, "profile", lambda *args, **how: pytest.fail("measured again"))
    assert module.spending(None, Before, (None, None), (None, None), (None, None)) == {"how": "measured"}


def test_stages_of_a_chain_are_held_against_their_share_of_the_layer(tmp_path):
    model = TinyNet().eval()
    state = State(model, model, None, ((EXAMPLE,), {}))
    made = factorize(ranks=4, include=("conv1",))(state, Run(tmp_path)).model
    layers = [{layer.name: Side(layer, 1.0) for layer in drafted(m, state.example).layers} for m in (model, made)]
    pairs = [Pair(name, layers[0].get(name), layers[1].get(name)) for name in {**layers[0], **layers[1]}]
    held = {pair.name: pair for pair in module._beside_wholes(pairs)}
    first, last = held["conv1.first"], held["conv1.last"]
    assert first.work_gain == pytest.approx(last.work_gain) and first.work_gain > 4
    assert first.before.ms + last.before.ms == pytest.approx(1.0) and held["conv2"] is pairs[list(held).index("conv2")]


def test_a_layer_in_few_bits_has_its_time_and_is_told_to_be_smaller_alone(tmp_path, unhurried, monkeypatch):
    """Also where rounding makes zeros: they are no cut that lags behind."""
    monkeypatch.setattr(module, "SECONDS", 0.1)
    with unhurried():
        result = penjing.run(TinyNet(64), None, [quantize("twn"), "export"], example=EXAMPLE, folder=tmp_path / "run")
    found = result.results["spending"]
    by_name = {one["name"]: one["after"] for one in found["layers"]}
    assert set(by_name) == {"stem", "conv1", "conv2", "linear"}
    assert all(by_name[name]["measured_ms"] > 0 and by_name[name]["bits"] == 2 for name in ("conv1", "conv2"))
    causes = {name: [one["cause"] for one in found["findings"] if one["where"] == name] for name in by_name}
    assert causes["conv1"] == causes["conv2"] == ["size only"] and "size only" not in causes["stem"]
    assert [one["size_only"] for one in result.results["few_bits"]] == [True, True]
    assert result.results["rows"][1]["bundle"] < 0.3 * result.results["rows"][0]["bundle"]
    assert "size only" in (tmp_path / "run" / "report.html").read_text()
