"""A preview chooses as a run does, and does nothing else."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import penjing
from penjing.cli import app
from penjing.core.errors import Infeasible, PlanError
from penjing.core.registry import build
from penjing.steps.prune import prune
from penjing.steps.train import train
from tiny import TinyNet, pictures, tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def untrained(monkeypatch):
    """Let a training, and an export of the result, be an error."""

    def never(self, state, run):
        raise AssertionError(f"{type(self).__name__} was called")

    for step in (train, penjing.export, penjing.check, penjing.reconstruct, penjing.recalibrate):
        monkeypatch.setattr(step, "__call__", never)


def shell(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_plan_is_that_of_the_run(folder):
    steps = [prune(criterion="l1"), "recalibrate"]
    preview = penjing.preview(tiny(), folder, steps, "macs=0.6x", seed=3)
    result = penjing.run(tiny(), folder, steps, "macs=0.6x", seed=3).results
    assert preview.facts["sites"] == result["sites"]
    predicted = {row["cost"]: row for row in preview.facts["costs"]}
    for name in ("macs", "params", "memory", "nonzero"):
        assert predicted[name]["predicted"] == result["rows"][1][name], name
        assert predicted[name]["original"] == result["rows"][0][name], name
    macs = predicted["macs"]
    assert macs["asked"] == "0.6x" and macs["predicted"] <= macs["limit"] == pytest.approx(0.6 * macs["original"])
    assert preview.facts["certificates"][0]["ok"] and preview.facts["lowest"] == result["lowest"]


def test_nothing_is_trained_exported_written_or_read(folder, tmp_path, untrained, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, model = penjing.data.load(folder), tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    preview = penjing.preview(model, data, budget="macs=0.6x")
    assert data.test_reads == 0 and not list(tmp_path.iterdir())
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert [next(iter(step)) for step in preview.facts["then"]] == [
        "reconstruct", "recalibrate", "train", "export", "check"
    ]  # fmt: skip
    assert "macs" in str(preview) and "Then: reconstruct, recalibrate, train(lr=0.005), export, check." in str(preview)
    assert len(preview.plan) == sum(site["after"] < site["before"] for site in preview.facts["sites"])


@pytest.mark.parametrize("cut", [True, False], ids=["then cut", "alone"])
def test_chains_that_a_recipe_merges_first_are_merged_in_the_preview(folder, untrained, cut):
    model = tiny()
    model.conv1 = build("factorization", "svd").split(model.conv1, 32)
    steps = ["merge", *([prune(criterion="l1")] if cut else [])]
    seen, result = (call(model, folder, steps, "macs=0.6x") for call in (penjing.preview, penjing.run))
    assert "Merge: 1 of 1 chains merged." in str(seen) and not seen.before and len(seen.then) == 0
    assert "chains equal their products" in str(seen)
    macs = next(row for row in seen.facts["costs"] if row["cost"] == "macs")
    assert macs["predicted"] == result.results["rows"][1]["macs"] < macs["original"]
    widths = {s["site"]: s["after"] for s in seen.facts["sites"]}
    assert widths == {s["site"]: s["after"] for s in result.results["sites"]} and bool(widths) == cut


def test_latency_is_predicted_from_layers_alone(folder, monkeypatch):
    measured = []
    honest = penjing.steps.price.Pricer.measure
    monkeypatch.setattr(penjing.steps.price.Pricer, "measure", lambda *args: measured.append(1) or honest(*args))
    preview = penjing.preview(TinyNet(width=64), folder, [prune(criterion="l1")], "latency=0.8x")
    (row,) = [row for row in preview.facts["costs"] if row["cost"] == "latency"]
    assert not measured and 0 < row["predicted"] <= row["limit"] < row["original"]


def test_a_search_measures_its_trials_and_nothing_else(folder, untrained):
    data = penjing.data.load(folder)
    steps = [prune(criterion="l1", allocator={"random": {"trials": 4}}), "recalibrate"]
    preview = penjing.preview(tiny(), data, steps, "macs=0.6x")
    (search,) = preview.facts["searches"]
    assert search["allocator"] == "random" and search["trials"] == 4 and data.test_reads == 0
    assert preview.facts["costs"][0]["predicted"] <= preview.facts["costs"][0]["limit"]


def test_what_is_known_only_afterwards_says_so(folder):
    preview = penjing.preview(tiny(), folder, ["recalibrate", prune(criterion="l1")], "macs=0.6x,error=+90")
    (row,) = [row for row in preview.facts["costs"] if row["cost"] == "error"]
    assert row["predicted"] is None and row["asked"] == "+90"
    text = str(preview)
    assert "known after the work" in text and "Before the cut comes recalibrate" in text and "Then: nothing." in text


def test_without_a_cut_there_is_nothing_to_preview(folder):
    with pytest.raises(PlanError, match="no step cuts before anything is trained"):
        penjing.preview(tiny(), folder, ["recalibrate"])


# -------------------------------------------------------------------------------------------------- the shell


def test_a_dry_run_from_the_shell_is_one_document(folder, tmp_path, untrained):
    out = tmp_path / "run"
    words = ["compress", "tiny:tiny", folder, "--budget", "macs=0.6x", "--criterion", "l1", "--out", out, "--dry-run"]
    said = shell(*words, "--quiet")
    assert said.exit_code == 0, said.output
    assert "2 sites are cut" in said.stdout and "Proof holds" in said.stdout and not said.stderr
    facts = json.loads(shell(*words, "--json").stdout)
    assert facts["step"]["prune"]["criterion"] == "l1" and facts["costs"][0]["predicted"] > 0
    assert not out.exists()


def test_a_recipe_runs_dry_too(tmp_path, folder, untrained):
    recipe = Path(tmp_path, "r.yaml")
    recipe.write_text(f"model: tiny:tiny\ndata: {folder}\nbudget: {{macs: 0.6x}}\nsteps: [prune, {{train: {{}}}}]\n")
    said = shell("run", recipe, "--dry-run", "--set", "prune.criterion=l1", "--budget", "macs=0.5x")
    assert said.exit_code == 0, said.output
    assert "0.5x = " in said.stdout and "Then: train." in said.stdout


def test_what_cannot_be_met_ends_as_the_run_itself_does(folder, tmp_path):
    words = ["compress", "tiny:tiny", folder, "--budget", "macs=0.0001x", "--epochs", "0", "--out", tmp_path / "run"]
    ends = [shell(*words, "--quiet", *more) for more in ((), ("--dry-run",))]
    assert [end.exit_code for end in ends] == [1, 1]
    assert ends[0].stderr == ends[1].stderr and "lowest reachable" in ends[0].stderr
    with pytest.raises(Infeasible):
        penjing.preview(tiny(), folder, budget="macs=0.0001x")


def test_a_dry_run_of_quantize_says_what_it_would_store(folder, untrained):
    shown = penjing.preview(tiny(), folder, [{"quantize": {"method": "lsq", "bits": 4}}, "export"])
    assert [(one["layer"], one["bits"], one["bytes"]) for one in shown.facts["few bits"]] == [
        ("conv1", 4, 2304.0), ("conv2", 4, 2304.0)
    ]  # fmt: skip
    size = next(row for row in shown.facts["costs"] if row["cost"] == "size")
    assert size["original"] - size["predicted"] == 2 * 4608 * 28 / 8
    assert "32 -> 4 bits" in str(shown) and "36.9 kB of weights became 4.61 kB" in str(shown)
    assert "smaller and not faster" in str(shown)


def test_a_dry_run_of_bits_by_budget_chooses_them(folder, untrained):
    step = {"quantize": {"method": "lsq", "budget": "energy=0.85x"}}
    shown = penjing.preview(tiny(), folder, [step], target="eyeriss_v1")
    energy = next(row for row in shown.facts["costs"] if row["cost"] == "energy")
    assert energy["predicted"] <= energy["limit"] and shown.plan.rewrites() == ["lsq"]
    assert {one["method"] for one in shown.facts["few bits"]} == {"lsq"}
    assert not any(one["size_only"] for one in shown.facts["few bits"])


def test_power_without_a_frame_rate_is_said_to_be_of_inferences_back_to_back(folder, capsys):
    chip = penjing.targets.find("eyeriss_v1")
    said = []
    for target in (chip, chip.at(frame_rate=1e-3)):
        with pytest.raises(penjing.core.errors.BudgetError, match="asks for nothing"):
            penjing.preview(tiny(), folder, [prune(criterion="l1")], "power=100W", target=target)
        said.append("back to back" in capsys.readouterr().err)
    assert said == [True, False]
