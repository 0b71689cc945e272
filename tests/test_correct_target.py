"""``penjing target correct``: runs come into a target's file once, where they fit, and bring it nearer to the truth."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from costs.test_fit import LAYERS, fit, stairs
from penjing.cli import app
from penjing.core.errors import PlanError, RecipeError
from penjing.core.registry import build
from penjing.correct_target import MOST_RUNS, correct_target, told
from penjing.costs.design import kind_of
from penjing.costs.measured import known
from penjing.costs.notation import read_shape, written
from penjing.costs.probe import Shape
from penjing.exporting.measure import cpu_name, runtime_name
from penjing.targets import find
from penjing.targets.find import PRESETS
from tiny import pictures

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))


CONV = [shape for shape in LAYERS if kind_of(shape) == "conv"]
WIDE = [shape for shape in LAYERS if kind_of(shape) == "pointwise"]
HEAD = Shape(64, 10)

BOX: dict[str, Any] = {
    "kind": "runtime", "about": "my box", "runtime": "onnxruntime", "threads": 1, "batch": 1, "precision": "fp32",
    "version": build("runtime", "onnxruntime").version(), "cpu": cpu_name(), "step": 16,
    **fit({shape: stairs(shape) for shape in LAYERS}).to_dict(),
}  # fmt: skip


def truth(shapes: dict[Shape, int]) -> float:
    """In a network a convolution takes 1.4 times what it takes alone, all else 0.8 times; 50 us go elsewhere."""
    return 0.05 + sum(n * stairs(s) * (1.4 if kind_of(s) == "conv" else 0.8) for s, n in shapes.items())


def row(name: str, shapes: dict[Shape, int], disturbed: float = 1.0) -> dict[str, Any]:
    ms = disturbed * truth(shapes)
    latency = {"median_ms": 1.1 * ms, "best_ms": ms, "threads": 1, "batch": 1, "cpu": cpu_name(),
               "runtime": runtime_name()}  # fmt: skip
    return {"name": name, "layers": {written(shape): n for shape, n in shapes.items()}, "latency": latency}


def results(seed: int, disturbed: float = 1.0, profile: bool = True) -> dict[str, Any]:
    """What a run leaves that cut a network of three convolutions and three wide layers to other such ones."""
    before = {**dict.fromkeys(CONV[seed : seed + 3], 1), **dict.fromkeys(WIDE[seed : seed + 3], 2), HEAD: 1}
    after = {**dict.fromkeys(CONV[seed + 3 : seed + 5], 1), **dict.fromkeys(WIDE[seed + 3 : seed + 4], 1), HEAD: 1}
    layers = [
        {"name": f"l{i}", side: {"shape": written(shape), "measured_ms": 1.1 * disturbed * (truth({shape: 1}) - 0.05)}}
        for side, shapes in (("before", before), ("after", after))
        for i, shape in enumerate(s for s, n in shapes.items() for _ in range(n))
    ]
    return {
        "name": "net on data", "created": f"2026-01-{seed + 1:02}T00:00:00+00:00",
        "rows": [row("original", before, disturbed), row("penjing", after, disturbed)],
        "spending": {"how": "measured", "layers": layers} if profile else {"how": "whole", "layers": []},
    }  # fmt: skip


@pytest.fixture
def box(tmp_path: Path) -> Path:
    file = tmp_path / "box.yaml"
    file.write_text(f"# Mine.\n{yaml.safe_dump(BOX, sort_keys=False)}")
    return file


def off(file: Path, seeds: range) -> list[tuple[float, float]]:
    """How far networks are predicted off by the table alone and as corrected."""
    found = known(find(file))
    assert found is not None
    seen = [one for run in found.runs if int(run.date[8:10]) - 1 in seeds for one in run.networks.values()]
    real = [truth(shapes) for seed in seeds for shapes in _shapes(seed)]
    return [
        (abs(one.total / ms - 1), abs(found.predict(one) / ms - 1)) for one, ms in zip(seen, real, strict=True)
    ]  # fmt: skip


def _shapes(seed: int) -> list[dict[Shape, int]]:
    return [{read_shape(text): n for text, n in one["layers"].items()} for one in results(seed)["rows"]]


@pytest.mark.parametrize("profile", [True, False])
def test_what_was_measured_is_predicted_nearer(box: Path, profile: bool) -> None:
    _, added = correct_target(box, {Path("run"): results(0, profile=profile)})
    assert added == ["run"]
    for before, after in off(box, range(1)):
        assert after < 0.75 * before


def test_where_runs_disagree_most_of_them_decide(box: Path) -> None:
    good = {Path(f"run{seed}"): results(seed) for seed in range(4)}
    correct_target(box, good | {Path("noisy"): results(9, disturbed=3.0)})
    errors = off(box, range(4))
    assert sum(after for _, after in errors) < 0.3 * sum(before for before, _ in errors)


def test_the_same_run_twice_changes_nothing(box: Path, tmp_path: Path) -> None:
    correct_target(box, {Path("a"): results(0), Path("b"): results(1)})
    first = box.read_bytes()
    found, added = correct_target(box, {Path("again"): results(1), Path("moved"): results(0)})
    assert added == [] and box.read_bytes() == first and len(found.runs) == 2
    correct_target(box, {Path("b"): results(1)}, tmp_path / "copy.yaml")
    assert (tmp_path / "copy.yaml").read_bytes() == first


def test_the_file_keeps_all_else_and_where_corrections_are_from(box: Path, tmp_path: Path) -> None:
    before = box.read_text()
    out = tmp_path / "new.yaml"
    correct_target(box, {Path("a"): results(0)}, out)
    assert box.read_text() == before and out.read_text().startswith(before)
    (run,) = yaml.safe_load(out.read_text())["runs"]
    assert (run["name"], run["date"]) == ("net on data", "2026-01-01T00:00:00+00:00")
    assert run["machine"] == f"{runtime_name()}, {cpu_name()}"
    assert set(run["networks"]) == {"original", "penjing"}
    assert run["networks"]["original"]["measured"] == pytest.approx(
        results(0)["rows"][0]["latency"]["best_ms"], abs=1e-6
    )
    assert set(run["networks"]["penjing"]["predicted"]) == {"conv", "pointwise", "linear"}


def test_a_file_that_is_written_otherwise_is_understood(box: Path) -> None:
    box.write_text(json.dumps(BOX | {"runs": []}, indent=1))  # JSON is YAML, and nothing can be added at its end
    correct_target(box, {Path("a"): results(0)})
    assert len(known(find(box)).runs) == 1 and find(box).about == "my box"


def test_only_the_latest_runs_are_kept(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_RUNS >= 10
    monkeypatch.setattr("penjing.correct_target.MOST_RUNS", 2)
    found, _ = correct_target(box, {Path(f"{seed}"): results(seed) for seed in (3, 1, 2)})
    assert [run.date[8:10] for run in found.runs] == ["03", "04"]


@pytest.mark.parametrize(
    ("key", "value"), [("cpu", "An abacus"), ("threads", 2), ("batch", 8), ("runtime", "onnxruntime 0.1 bf16")]
)
def test_a_run_of_elsewhere_is_refused_by_naming_both(key: str, value: Any, box: Path) -> None:
    before, run = box.read_bytes(), results(0)
    run["rows"][1]["latency"][key] = value
    ours = {"cpu": cpu_name(), "runtime": runtime_name(), "threads": "threads: 1", "batch": "batch: 1"}[key]
    with pytest.raises(PlanError) as caught:
        correct_target(box, {Path("good"): results(1), Path("far"): run})
    said = str(caught.value)
    assert said.startswith("far was measured on ") and str(value) in said and ours in said and str(box) in said
    assert box.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ([], "the results = [] must hold key: value pairs"),
        ({"rows": []}, "rows = [] must list networks"),
        ({"rows": [3]}, "rows[0] = 3 must hold key: value pairs"),
        ({"rows": [row("a", {HEAD: 1}) | {"layers": {"8>": 1}}]}, "'8>' is no layer"),
        ({"rows": [row("a", {HEAD: 1}) | {"layers": {"8>8": 0}}]}, "rows[0].layers.8>8 = 0 must be a whole number"),
        ({"rows": [{"name": "a", "latency": row("a", {HEAD: 1})["latency"]}]}, "rows[0].layers is missing"),
        ({"created": 3}, "created = 3 must be text"),
        ({"spending": 3}, "spending = 3 must hold"),
        ({"spending": {"how": "measured", "layers": [{"before": {"shape": "8>8"}}]}}, "before.measured_ms is missing"),
    ],
)
def test_results_that_are_none_are_refused(change: Any, says: str, box: Path) -> None:
    before = box.read_bytes()
    with pytest.raises(RecipeError) as caught:
        correct_target(box, {Path("odd"): results(0) | change if isinstance(change, dict) else change})
    assert str(caught.value).startswith("odd: ") and says in str(caught.value)
    assert box.read_bytes() == before


@pytest.mark.parametrize("text", ["kind: runtime\nruntime: onnxruntime", (PRESETS / "mcu_m7.yaml").read_text()])
def test_a_target_without_times_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "other.yaml"
    file.write_text(text)
    with pytest.raises(PlanError, match=r"other\.yaml holds no times of layers to correct"):
        correct_target(file, {Path("a"): results(0)})


def test_far_corrections_are_pointed_at(box: Path) -> None:
    found, _ = correct_target(box, {Path("a"): results(0)})
    assert "Corrected by 1 run: times are multiplied by" in told(found) and "Beware" not in told(found)
    found, _ = correct_target(box, {Path(f"{i}"): results(i, disturbed=4.0) for i in range(2, 6)})
    assert "Beware: that is far" in told(found)


def shell(*words: object) -> Any:
    return CliRunner().invoke(app, [*map(str, words)])


def test_a_real_run_corrects_and_its_report_tells_both(box: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("penjing.steps.spending.SECONDS", 0.1)
    words = ("--criterion", "l1", "--epochs", 0, "--target", box, "--out", "run", "--quiet")
    done = shell("compress", "tiny:tiny", pictures(tmp_path), "--budget", "macs=0.6x", *words)
    assert done.exit_code == 0, done.output
    page = Path("run/report.html").read_text()
    assert "By the target’s file" in page or "By the target&#39;s file" in page
    rows = json.loads(Path("run/results.json").read_text())["rows"]
    said = json.loads(shell("target", "correct", box, "run", "--json").output)
    (first, second) = said["corrected"]["networks"]
    assert said["added"] == ["run"] and first["table"] == pytest.approx(rows[0]["predicted_ms"])
    assert first["measured"] == pytest.approx(rows[0]["latency"]["best_ms"], abs=1e-6)
    assert abs(second["corrected"] / second["measured"] - 1) <= abs(second["table"] / second["measured"] - 1) + 0.05
    again = shell("target", "correct", box, "run")
    assert again.exit_code == 0 and "knows these runs; nothing is new" in again.output
    for verb in ("show", "check"):
        assert "Corrected by 1 run" in shell("target", verb, box).output
    assert json.loads(shell("target", "check", box, "--json").output)["corrected"]["runs"] == 1


def test_what_is_wrong_is_one_sentence_in_the_shell(box: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "results.json")
    for folder, says in ((tmp_path, "it is no regular file"), (tmp_path / "none", "No such file")):
        done = shell("target", "correct", box, folder)
        assert done.exit_code == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1
    box.write_text(box.read_text().replace("read_step: 16", "read_step: [16]", 1))
    done = shell("target", "check", box)
    assert done.exit_code == 2 and "read_step = [16] must be a whole number" in done.stderr
