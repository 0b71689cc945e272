"""Files are those of the model as it is now, under names that stay in the run's folder, and misses leave results."""

import json

import pytest
import torch

import penjing
from penjing.core.errors import Infeasible, Missed, PenjingError, PlanError
from penjing.steps.check import check
from penjing.steps.export import export
from penjing.steps.prune import prune
from tiny import TinyNet, pictures, tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("pictures"))


def test_a_file_of_an_earlier_model_is_not_measured(folder):
    with pytest.raises(PlanError, match="no file of the model as it is then; put the step export right before check"):
        penjing.run(tiny(), folder, [prune(criterion="l1"), "export", "recalibrate", "check"], "macs=0.5x")
    with pytest.raises(PlanError, match="export"):
        penjing.run(tiny(), folder, [prune(criterion="l1"), "check"], "macs=0.5x")


def test_the_file_may_have_another_name_and_there_may_be_two(folder, tmp_path):
    steps = [{"export": {"file": "before.onnx"}}, prune(criterion="l1"), {"export": {"file": "small.onnx"}}, "check"]
    result = penjing.run(tiny(), folder, steps, "macs=0.5x", folder=tmp_path / "run")
    names = sorted(p.name for p in (tmp_path / "run").iterdir())
    assert names == ["before.onnx", "journal.jsonl", "model.penjing", "report.html", "results.json", "small.onnx"]
    assert sorted(result.results["files"]) == ["before.onnx", "small.onnx"]
    copy = result.export(tmp_path / "deep" / "copy.onnx")
    assert copy.read_bytes() == (tmp_path / "run" / "small.onnx").read_bytes()


@pytest.mark.parametrize("name", ["../out.onnx", "/tmp/x.onnx", "a/b.onnx", ".onnx", "model.pt", "results.json"])
def test_a_file_outside_the_folder_is_refused(name):
    with pytest.raises(PlanError, match="plain name that ends in"):
        export(file=name)


def test_senseless_options_are_refused():
    for wrong in ({"images": 0}, {"tolerance": 0}, {"tolerance": 2.0}):
        with pytest.raises(PlanError, match=next(iter(wrong))):
            export(**wrong)


def test_a_missed_budget_is_an_error_that_leaves_its_results(folder, tmp_path, monkeypatch):
    """Predictions that promise too much: the file itself decides."""
    from penjing.steps.price import Pricer

    monkeypatch.setattr(Pricer, "measure", lambda self, model: {"size": 1.0})
    monkeypatch.setattr(Pricer, "__call__", lambda self, plan: {"size": 1.0})
    out = tmp_path / "run"
    with pytest.raises(Missed, match=f"size 0.3x is .* measured .*What was reached lies in {out}"):
        penjing.run(TinyNet(width=32), folder, [prune(criterion="l1"), "export", "check"], "size=0.3x", folder=out)
    results = json.loads((out / "results.json").read_text())
    assert [line["met"] for line in results["budget"]] == [False]
    assert results["spending"]["layers"], "that is when people ask where the time goes"
    assert "Budget missed" in (out / "report.html").read_text() and (out / "model.onnx").exists()


def test_a_run_without_an_export_says_so(folder):
    result = penjing.run(tiny(), folder, [prune(criterion="l1")], "macs=0.5x")
    with pytest.raises(PlanError, match="exported nothing"):
        result.export("x.onnx")
    assert check().file is None


def test_a_run_without_data_ends_in_a_file_and_a_report(tmp_path):
    out = tmp_path / "run"
    steps = [prune(criterion="l1"), "export", "check"]
    result = penjing.run(tiny(), None, steps, "macs=0.5x", folder=out, example=torch.randn(2, 3, 8, 8))
    original, small = result.results["rows"]
    assert small["macs"] <= 0.5 * original["macs"] and original["accuracy"] is None
    assert result.results["test_reads"] == 0
    page = (out / "report.html").read_text()
    assert "There were no test pictures" in page and "nan" not in page.lower().replace("nanos", "")


def test_without_data_what_needs_it_is_refused_by_name(tmp_path):
    with pytest.raises(PlanError, match="recalibrate"):
        penjing.run(tiny(), None, ["recalibrate"], example=torch.randn(2, 3, 8, 8))
    with pytest.raises(PlanError, match="neither data nor an example"):
        penjing.run(tiny(), None, ["export"])
    with pytest.raises(PlanError, match="reference 'random' needs data"):
        penjing.run(tiny(), None, ["export"], example=torch.randn(2, 3, 8, 8), references=("random",))


def test_an_infeasible_budget_leaves_nothing_behind(folder, tmp_path):
    with pytest.raises(Infeasible):
        penjing.run(tiny(), folder, [prune(criterion="l1"), "export"], "macs=0.0001x", folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_chains_in_half_precision_are_exported_and_measured(tmp_path):
    steps = [{"factorize": {"ranks": 4, "include": ["conv*"]}}, "export", "check"]
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = penjing.run(tiny().half().eval(), None, steps, "macs=0.9x", example=x.half()).results
    parity = next(one for one in found["certificates"] if one["name"] == "torch equals ONNX")
    assert 0 < parity["difference"] < parity["tolerance"] < 0.03
    assert found["budget"][0]["met"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_a_precision_that_the_runtime_lacks_is_named(dtype):
    x = torch.randn(4, 3, 8, 8).to(dtype)
    with pytest.raises(PenjingError, match=f"in {str(dtype)[6:]}; pass model"):
        penjing.run(tiny().to(dtype).eval(), None, ["export"], example=x)
