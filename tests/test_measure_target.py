"""``penjing target measure``: what it writes, that it goes on where it was stopped, and what it refuses."""

import json
import sys

import pytest
import yaml
from typer.testing import CliRunner

from costs.test_fit import stairs
from penjing import measure_target as module
from penjing.cli import app
from penjing.core.errors import MissingExtra, PlanError, RecipeError
from penjing.costs.fit import StaircaseModel
from penjing.measure_target import FEWEST_LAYERS, Asked, measure_target, told
from penjing.targets import find


class Machine:
    """A machine whose layers take what the stairs say, and a second of its own clock to time; it may stop."""

    def __init__(self, stop: int = -1) -> None:
        self.asked: list[object] = []
        self.stop = stop
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def __call__(self, shape, threads, batch, runtime, precision) -> float:
        if len(self.asked) == self.stop:
            raise KeyboardInterrupt
        self.asked.append(shape)
        self.now += 1.0
        return stairs(shape)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()
    monkeypatch.setattr(module, "time_shape", found)
    monkeypatch.setattr(module, "time", found)
    far = {"net": {"predicted": 1.1, "measured": 1.0, "median": 1.05, "error": 0.1}}
    monkeypatch.setattr(module, "networks", lambda model, asked: far)
    return found


def test_the_file_holds_what_was_measured(machine, tmp_path) -> None:
    out = tmp_path / "made" / "box.yaml"
    facts = measure_target(Asked("onnxruntime"), out, seconds=0.0)
    assert yaml.safe_load(out.read_text()) == facts
    assert [path.name for path in out.parent.iterdir()] == ["box.yaml"]
    assert (facts["kind"], facts["runtime"], facts["step"]) == ("runtime", "onnxruntime", 16)
    model = StaircaseModel.from_dict(facts, facts["batch"])
    assert len(model.times) == len(set(machine.asked)) == len(machine.asked) >= FEWEST_LAYERS
    assert model.predict(machine.asked[-1]) == stairs(machine.asked[-1])
    assert facts["error"]["layers"]["conv"]["median"] < 0.01


def test_the_file_is_a_target(machine, tmp_path) -> None:
    facts = measure_target(Asked("onnxruntime", batch=2), tmp_path / "box.yaml", seconds=0.0)
    target = find(tmp_path / "box.yaml")
    assert (target.runtime, target.batch, target.precision, target.step) == ("onnxruntime", 2, "fp32", 16)
    assert StaircaseModel.from_dict(target.table, target.batch) == StaircaseModel.from_dict(facts, 2)


def test_it_goes_on_where_it_was_stopped(machine, tmp_path) -> None:
    whole = measure_target(Asked("onnxruntime"), tmp_path / "whole.yaml", seconds=0.0)
    asked, out = machine.asked, tmp_path / "box.yaml"
    machine.asked, machine.stop = [], 50
    with pytest.raises(KeyboardInterrupt):
        measure_target(Asked("onnxruntime"), out, seconds=0.0)
    assert not out.exists() and (tmp_path / "box.yaml.part").exists()
    first, machine.asked, machine.stop = machine.asked, [], -1
    assert measure_target(Asked("onnxruntime"), out, seconds=0.0) == whole
    assert first + machine.asked == asked
    assert sorted(path.name for path in tmp_path.iterdir()) == ["box.yaml", "whole.yaml"]


def test_it_does_not_go_on_with_another_target(machine, tmp_path) -> None:
    machine.stop = 3
    with pytest.raises(KeyboardInterrupt):
        measure_target(Asked("onnxruntime"), tmp_path / "box.yaml")
    with pytest.raises(PlanError, match=r"box\.yaml\.part holds times of .*batch 1.*, and not of .*batch 2"):
        measure_target(Asked("onnxruntime", batch=2), tmp_path / "box.yaml")


def test_the_time_is_that_of_all_processes(machine, tmp_path) -> None:
    machine.stop = 150
    with pytest.raises(KeyboardInterrupt):
        measure_target(Asked("onnxruntime"), tmp_path / "box.yaml", seconds=200.0)
    machine.stop = -1
    measure_target(Asked("onnxruntime"), tmp_path / "box.yaml", seconds=200.0)
    assert len(machine.asked) == 200


def test_what_cannot_be_measured_is_said_before_anything_is_timed(machine, tmp_path, monkeypatch) -> None:
    (tmp_path / "folder").mkdir()
    for asked, out, error, message in (
        (Asked("onnxruntim"), "a.yaml", RecipeError, "Did you mean 'onnxruntime'"),
        (Asked("torch_compile"), "a.yaml", PlanError, "torch_compile reads no ONNX"),
        (Asked("onnxruntime", precision="bf16"), "a.yaml", PlanError, "onnxruntime does not compute in bf16"),
        (Asked("onnxruntime", threads=0), "a.yaml", PlanError, "threads must be a whole number"),
        (Asked("onnxruntime"), "folder", PlanError, "folder is a folder"),
    ):
        with pytest.raises(error, match=message):
            measure_target(asked, tmp_path / out)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtra):
        measure_target(Asked("openvino"), tmp_path / "a.yaml")
    assert machine.asked == [] and [path.name for path in tmp_path.iterdir()] == ["folder"]


def shell(*words):
    return CliRunner().invoke(app, ["target", "measure", *map(str, words)])


def test_the_shell_measures(machine, tmp_path) -> None:
    said = shell("onnxruntime", "--out", tmp_path / "box.yaml", "--seconds", 1)
    assert said.exit_code == 0 and "+10.0%" in said.stdout and "channels in steps of 16" in said.stdout, said.output
    assert "Beware" not in said.stdout
    said = shell("onnxruntime", "--out", tmp_path / "box.yaml", "--seconds", 1, "--json")
    assert json.loads(said.stdout)["error"]["networks"]["net"]["error"] == 0.1
    machine.stop = len(machine.asked) + 5
    said = shell("onnxruntime", "--out", tmp_path / "again.yaml", "--seconds", 1)
    assert said.exit_code == 130 and "interrupted; the same command goes on" in said.stderr


@pytest.mark.slow
def test_a_real_machine_is_measured(tmp_path) -> None:
    facts = measure_target(Asked("onnxruntime"), tmp_path / "box.yaml", seconds=20.0)
    assert set(facts["error"]["networks"]) == {f"{name} at {side}x{side}" for name, side in module.NETWORKS}


def test_a_network_that_is_far_off_is_pointed_at(machine, tmp_path) -> None:
    facts = measure_target(Asked("onnxruntime"), tmp_path / "box.yaml", seconds=0.0)
    assert "Beware" not in told(facts, tmp_path)
    facts["error"]["networks"]["net"]["error"] = -0.4
    assert told(facts, tmp_path).endswith("when nothing else runs on this machine.")
