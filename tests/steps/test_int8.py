"""A run whose file is quantized: its accuracy is the file's, and nothing but the file comes after int8."""

from dataclasses import replace

import pytest
import torch

import penjing
from penjing.core.errors import ParityError, PlanError, RecipeError
from penjing.core.registry import build
from penjing.data import load
from penjing.exporting.onnx import export_onnx
from penjing.exporting.session import evaluate_onnx, operators
from penjing.graph.quantized import quantized
from penjing.steps import export as export_step
from penjing.steps.check import check
from penjing.steps.evaluate import evaluate_
from penjing.steps.export import export
from penjing.steps.int8 import int8
from penjing.steps.order import ordered
from penjing.steps.prune import prune
from penjing.steps.state import Run, State
from tiny import TinyNet, pictures, skilled, tiny


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load(pictures(tmp_path_factory.mktemp("pictures")), seed=0)


def state_of(model, data):
    return State(model.eval(), model, data, ((data.example(2),), {}))


class Killed(BaseException):
    """Stands for SIGKILL."""


def test_a_run_ends_in_a_file_of_whole_numbers_that_is_what_is_judged(data, tmp_path, monkeypatch):
    steps = [{"int8": {"images": 48, "calibration": "percentile"}}, "export", "check"]
    with monkeypatch.context() as patch:
        honest = export_step.write_int8

        def killed(*args):
            honest(*args)
            raise Killed

        patch.setattr(export_step, "write_int8", killed)
        with pytest.raises(Killed):
            penjing.run(skilled(), data, steps, "error=+5", folder=tmp_path / "run", references=("random",))
    result = penjing.run(skilled(), data, steps, "error=+5", folder=tmp_path / "run", references=("random",))
    path = tmp_path / "run" / "model.onnx"
    assert result.results["resumed"][0]["after"] == "02-int8"
    assert operators(path)["QuantizeLinear"] > 3
    before, after, other = result.results["rows"]
    assert after["size"] == path.stat().st_size < 0.5 * before["size"] and other["size"] < 0.5 * before["size"]
    assert after["accuracy"] == pytest.approx(evaluate_onnx(path, data.test))
    assert result.results["budget"][0]["measured"] == pytest.approx(100 - evaluate_onnx(path, data.val))
    names = {one["name"]: one for one in result.results["certificates"]}
    assert 0 < names["torch resembles int8"]["difference"] < 0.1 and names["torch equals ONNX"]["difference"] < 1e-4
    assert "accuracies of the result are those of this file" in result.results["remarks"][-1]
    assert result.results["int8"][0]["kept"] == []
    assert "but for rounding" in (tmp_path / "run" / "report.html").read_text()


def test_the_accuracy_is_that_of_the_file_whatever_the_network_says(data, tmp_path):
    run = Run(tmp_path)
    file = export_onnx(tiny(), (data.example(2),), None, tmp_path / "untrained.onnx", quick=True)
    state = replace(state_of(skilled(), data), int8=int8())
    with pytest.raises(PlanError, match="put the step export right after int8"):
        evaluate_()(state, run)
    evaluate_()(state.with_file("untrained.onnx", file), run)
    assert run.noted("validation") == [pytest.approx(evaluate_onnx(file, data.val))]
    assert run.noted("validation")[0] < 90


def test_training_for_it_gives_the_network_its_weights_in_floats(data, tmp_path):
    run, model = Run(tmp_path), skilled()
    state = export()(int8(images=48, epochs=1, keep=("linear",), reduce_range=True)(state_of(model, data), run), run)
    assert not quantized(state.model) and state.files
    moved = [n for n, p in state.model.named_parameters() if not torch.equal(p, model.get_parameter(n))]
    assert {"conv1.weight", "linear.weight"} <= set(moved) and len(state.model.conv1.weight.unique()) > 1000
    assert evaluate_onnx(state.files["model.onnx"], data.val) > 90
    assert run.noted("int8")[0]["kept"] == ["linear"] and run.noted("trained")


def test_a_file_too_far_from_its_network_is_refused(data, tmp_path):
    run = Run(tmp_path)
    made = int8(images=16, tolerance=1e-4)(state_of(skilled(), data), run)
    with pytest.raises(ParityError, match=r"model\.onnx differs from the model.*Calibrate on more"):
        export()(made, run)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (["int8", "export", "train"], r"train: int8 rounds the exported file.*put int8 behind train, right before"),
        (["int8", "prune", "export"], r"prune: int8 rounds"),
        (["int8", "export", "int8", "export"], r"int8: int8 rounds"),
        (["int8"], "put the step export right after it"),
        (["int8", "evaluate", "export"], "put the step export right after it"),
        (["export", "int8", "check"], "check: there is no file"),
        (["export", "int8", "evaluate"], "put the step export right after it"),
    ],
)
def test_what_may_follow(steps, words):
    with pytest.raises(PlanError, match=words):
        ordered(steps)
    assert len(ordered(["export", "int8", "export", "check", "evaluate"])) == 5


def test_what_cannot_be(data, tmp_path):
    for wrong in ({"images": 0}, {"tolerance": 1.0}, {"epochs": -1}, {"calibration": "max"}):
        with pytest.raises((PlanError, RecipeError), match=next(iter(wrong))):
            build("step", {"int8": wrong})
    with pytest.raises(PlanError, match="int8"):
        penjing.run(tiny(), None, ["int8", "export"], example=torch.randn(2, 3, 8, 8))
    with pytest.raises(PlanError, match=r"keep names 'stm', which is no layer.*'stem'"):
        int8(keep=("stm",))(state_of(TinyNet(), data), Run(tmp_path))
    with pytest.raises(PlanError, match="torch_compile runs none; take another target"):
        run = Run(tmp_path, target=replace(penjing.targets.default(), runtime="torch_compile"))
        int8()(state_of(TinyNet(), data), run)


def test_check_measures_the_quantized_file(data, tmp_path):
    run = Run(tmp_path, {"size": "0.5x"})
    state = export()(int8(images=48)(state_of(skilled(), data), run), run)
    check()(state, run)
    (line,) = run.noted("budget")
    assert line["met"] and line["measured"] == state.files["model.onnx"].stat().st_size


def test_a_cut_knows_that_its_file_will_be_quantized(data, tmp_path):
    """Of a size in floats three quarters would have to go; whole numbers take most of that."""
    steps = [prune(criterion="l1"), "int8", "export", "check"]
    result = penjing.run(TinyNet(width=32), data, steps, "size=0.25x", folder=tmp_path)
    before, after = result.results["rows"]
    assert 0.2 < after["size"] / before["size"] <= 0.25
    assert after["params"] > 0.6 * before["params"]
