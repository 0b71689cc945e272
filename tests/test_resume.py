"""A run that is stopped anywhere ends, once it goes on, as if it had never been stopped."""

import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import penjing
from penjing.cli import app
from penjing.core.errors import Missed, ResumeError
from penjing.core.journal import Journal
from penjing.core.plain import told
from penjing.graph import form
from penjing.steps.prune import prune
from penjing.steps.train import train
from tiny import TinyNet, pictures, tiny

STEPS = [prune(criterion="l1"), "reconstruct", "recalibrate", train(epochs=2, lr=0.02, batch=16), "export", "check"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("pictures"))


def run(data, folder, steps=STEPS, budget="macs=0.6x", **options):
    return penjing.run(tiny(), data, steps, budget, folder=folder, **options)


SAME = ("sites", "pinned", "budget", "test_reads", "validation", "trained", "remarks", "trials", "sensitivity")


def test_results_say_where_a_run_went_on(data, tmp_path, monkeypatch, whole):
    assert whole.results["resumed"] == []
    with monkeypatch.context() as patch:
        kill_at(patch, 3)
        with pytest.raises(Killed):
            run(data, tmp_path)
    result = run(data, tmp_path)
    (gone_on,) = result.results["resumed"]
    assert gone_on["after"] == "03-reconstruct" and gone_on["at"].startswith("20")
    assert "went on once" in (tmp_path / "report.html").read_text()
    assert result.results["steps"] == whole.results["steps"] and len(result.results["steps"]) == len(STEPS)
    assert result.results["data"] | {"name": ""} == {"name": "", "train": 108, "val": 12, "classes": 3}


def timeless(results):
    """Leave out what is measured or read off a clock."""
    rows = [{k: v for k, v in row.items() if k not in ("latency", "ratio")} for row in results["rows"]]
    epochs = [{k: v for k, v in row.items() if k != "seconds"} for row in results["training"]]
    return {
        **{k: results[k] for k in SAME},
        "rows": rows,
        "epochs": epochs,
        "stages": [stage["name"] for stage in results["stages"]],
    }


class Killed(BaseException):
    pass


def kill_at(monkeypatch, count):
    """Die when the journal has got so many more lines."""
    honest, seen = Journal.note, list[str]()

    def note(self, event, **facts):
        seen.append(event)
        if len(seen) > count:
            raise Killed
        honest(self, event, **facts)

    monkeypatch.setattr(Journal, "note", note)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    return run(data, tmp_path_factory.mktemp("whole"), references=("random",))


def test_a_run_killed_before_every_line_of_its_journal_ends_the_same(data, tmp_path, monkeypatch, whole):
    lines = len((whole.folder / "journal.jsonl").read_text().splitlines())
    assert lines > 10
    place = tmp_path / "run"
    for count in range(1, lines):
        with monkeypatch.context() as patch:
            kill_at(patch, 1)
            try:
                broken = run(data, place, references=("random",))
                break
            except Killed:
                assert (place / "unfinished" / "run.json").exists(), count
    else:
        broken = run(data, place, references=("random",))
    assert form.same(form.tensors(whole.model), form.tensors(broken.model))
    assert timeless(whole.results) == timeless(json.loads((place / "results.json").read_text()))
    assert (place / "model.onnx").read_bytes() == (whole.folder / "model.onnx").read_bytes()
    assert not (place / "unfinished").exists()


def test_the_original_is_measured_when_somebody_asks_and_told_apart_from_who_asks(data, whole):
    stages = {stage["name"]: stage["seconds"] for stage in whole.results["stages"]}
    names = list(stages)
    assert names.index("export") < names.index("export the original") < names.index("time the original"), names
    assert len(whole.results["stages"]) == len(STEPS) + 4, "two evaluations and the original's two"
    timed = penjing.run(TinyNet(width=32), data, [prune(criterion="l1")], "latency=0.9x").results["stages"]
    assert [stage["name"] for stage in timed][1:4] == ["export the original", "time the original", "prune"]
    untimed = penjing.run(tiny(), data, ["recalibrate"]).results["stages"]
    assert "time the original" not in [stage["name"] for stage in untimed]


def test_latencies_that_were_measured_are_not_measured_again(data, tmp_path, monkeypatch):
    from penjing.steps import state as states

    honest, measured = states.measure, []

    def measure(files, **options):
        measured.append(sorted(files))
        return honest(files, **options)

    monkeypatch.setattr(states, "measure", measure)
    steps = [prune(criterion="l1"), "export", "check"]
    with monkeypatch.context() as patch:
        patch.setattr("penjing.api.gather", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run(data, tmp_path, steps)
    before = len(measured)
    run(data, tmp_path, steps)
    assert measured[before:] == [["original", "penjing"]], "the rows alone; the original's own time is known"


def test_the_same_call_goes_on_and_another_does_not(data, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr("penjing.api.gather", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(data, tmp_path)
    for other, key in (({"seed": 1}, "seed"), ({"budget": "macs=0.5x"}, "budget"), ({"threads": 2}, "threads")):
        with pytest.raises(ResumeError, match=f"unfinished run with another {key}"):
            run(data, tmp_path, **other)
    with pytest.raises(ResumeError, match="unfinished run with another steps"):
        run(data, tmp_path, steps=STEPS[:3])
    with pytest.raises(ResumeError, match="unfinished run with another data mean"):
        run(penjing.data.load(data, mean=(0.1,) * 3, std=(0.3,) * 3), tmp_path)
    capsys.readouterr()
    run(data, tmp_path)
    assert "Going on after step 8 of 8, evaluate." in capsys.readouterr().err


def test_a_training_goes_on_from_its_own_checkpoint(data, tmp_path, monkeypatch):
    """Also the second of two, and that of a reference."""
    from penjing.training.session import Session

    steps = [train(epochs=1, lr=0.02, batch=16), train(epochs=2, lr=0.02, batch=16)]
    honest, epochs = Session._epoch, []

    def watched(self, advance):
        if len(epochs) == 2:
            raise Killed
        honest(self, advance)
        epochs.append(self.job.recipe.epochs)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "_epoch", watched)
        with pytest.raises(Killed):
            run(data, tmp_path, steps, None, references=("scratch",))
        assert epochs == [1, 2]
        epochs.clear()
        with pytest.raises(Killed):
            run(data, tmp_path, steps, None, references=("scratch",))
        assert epochs == [2, 3], "one epoch of the second training was left, then the reference began"
    epochs.clear()
    patch = monkeypatch.setattr(Session, "_epoch", lambda self, a: (honest(self, a), epochs.append(1)))
    run(data, tmp_path, steps, None, references=("scratch",))
    assert epochs == [1, 1] and patch is None


def test_a_missed_budget_is_missed_again(data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("penjing.api.gather", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run(data, tmp_path, ["export", "check"])
    with pytest.raises(Missed, match=r"The exported file misses the budget: macs 0\.6x"):
        run(data, tmp_path, ["export", "check"])
    assert not json.loads((tmp_path / "results.json").read_text())["budget"][0]["met"]


def test_a_temporary_run_keeps_nothing(data):
    result = penjing.run(tiny(), data, [prune(criterion="l1")], "macs=0.6x")
    assert sorted(path.name for path in result.folder.iterdir()) == ["model.penjing", "report.html", "results.json"]


def test_what_identifies_a_step_is_the_same_in_every_process():
    assert told([prune(), pictures, Path("a/b"), {1: (2, None)}])[1:] == ["pictures", "a/b", {"1": [2, None]}]
    assert told({"b", "c", "a"}) == ["a", "b", "c"]
    assert "0x" not in json.dumps(told([train(terms=[penjing.train]), lambda: 0]))


def test_a_full_disk_is_a_sentence_and_the_folder_goes_on(data, tmp_path, whole):
    """No file may grow beyond a limit that the system sets."""

    def limit(size):
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    place = tmp_path / "run"
    for size in (1_000, 20_000, 45_000):
        code, said = ended(shell(*COMPRESS, data, "--out", place, preexec_fn=limit(size)))
        if code == 0:
            break
        assert code == 2 and said.startswith("penjing: ") and len(said.splitlines()) == 1, said
        assert "File too large" in said or "No space left on device" in said
        assert not (place / "results.json").exists() and (place / "unfinished" / "lock").exists()
    done = CliRunner().invoke(app, [*map(str, (*COMPRESS, data, "--out", place))])
    assert (done.exit_code, done.stderr) == (0, "")
    assert sorted(p.name for p in place.iterdir()) == [
        "journal.jsonl", "model.onnx", "model.penjing", "report.html", "results.json",
    ]  # fmt: skip


# ----------------------------------------------------------------------------------------------------- real kills

KILLS = [pytest.param(i, marks=[pytest.mark.slow] * (i >= 4)) for i in range(60)]

RECIPE = """
model: tiny:tiny
data: DATA
budget: macs=0.6x
steps:
  - prune: {criterion: l1, allocator: {random: {trials: 10}}}
  - reconstruct
  - recalibrate
  - train: {epochs: 1, batch: 16}
  - export
  - check
"""

PATH = os.pathsep.join(map(str, (Path(__file__).parent, Path(penjing.__file__).parents[1])))
"""Where other processes find the tests' networks, and this very penjing."""

COMPRESS = ["compress", "tiny:tiny", "--budget", "macs=0.6x", "--criterion", "l1", "--epochs", "2", "--quiet"]


def shell(*words, cwd=Path(__file__).parent, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": PATH}
    command = [sys.executable, "-m", "quick", *map(str, words)]
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options
    )


def ended(process):
    said = process.communicate(timeout=300)[1].decode()
    return process.returncode, said


@pytest.fixture(scope="module")
def searching(data, tmp_path_factory):
    """The words of a run with ten trials."""
    recipe = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    recipe.write_text(RECIPE.replace("DATA", str(data)))
    return ["run", recipe, "--quiet"]


@pytest.fixture(scope="module")
def unbroken(searching, tmp_path_factory):
    """The folder of a run that nobody disturbed, and how long it took."""
    folder, begun = tmp_path_factory.mktemp("unbroken"), time.monotonic()
    assert ended(shell(*searching, "--out", folder)) == (0, "")
    return folder, time.monotonic() - begun


@pytest.mark.parametrize("number", KILLS)
def test_killed_for_real_at_any_moment_it_ends_the_same_to_the_byte(searching, tmp_path, unbroken, number):
    """Every second one searches with two processes."""
    folder, lasted = unbroken
    place = tmp_path / "run"
    words = [*searching, "--workers", number % 2 * 2, "--out", place]
    process = shell(*words)
    time.sleep((0.15 + 0.85 * random.Random(number).random()) * lasted)
    process.kill()
    ended(process)
    if (place / "unfinished" / "run.json").exists():
        assert ended(shell("resume", place, cwd="/")) == (0, "")
    elif not (place / "results.json").exists():
        assert ended(shell(*words)) == (0, "")  # it had not begun
    assert (place / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()
    ours, theirs = (timeless(json.loads((f / "results.json").read_text())) for f in (place, folder))
    assert ours.pop("test_reads") >= theirs.pop("test_reads")
    assert ours == theirs and not (place / "unfinished").exists()


def test_a_run_that_goes_on_tells_programs_what_happens(data, tmp_path, monkeypatch):
    place = tmp_path / "run"
    words = [*COMPRESS, str(data), "--out", str(place)]
    monkeypatch.setattr(sys, "argv", ["penjing", *words])
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patched:
        kill_at(patched, 12)
        with pytest.raises(Killed):
            CliRunner().invoke(app, words)
    done = CliRunner().invoke(app, ["resume", str(place), "--json"])
    assert done.exit_code == 0 and not done.stderr, done.output
    first, *_, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert first["event"] == "remark" and first["text"].startswith("Going on after step")
    assert last["event"] == "results" and last["folder"] == str(place)
    assert last["results"] == json.loads((place / "results.json").read_text())
