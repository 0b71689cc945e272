"""What a tracker is told, by a sink that writes down every word; no library is needed for it."""

from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

import penjing
from penjing.cli import app
from penjing.core.errors import Infeasible, MissingExtra, PlanError, RecipeError
from penjing.graph import form
from penjing.steps.prune import prune
from penjing.steps.train import train
from penjing.tracking import tracker as trackers
from penjing.tracking.tracker import Tracker
from tiny import pictures, tiny

FIT = train(epochs=2, lr=0.02, batch=16)
STEPS = [prune(criterion="l1"), "recalibrate", FIT, FIT, "export", "check"]


class Killed(BaseException):
    pass


class Book:
    """A sink, and the store behind it, which outlives a process."""

    def __init__(self):
        self.figures, self.asked, self.came, self.files, self.ended = [], [], {}, [], []

    def told(self, name):
        return {step for known, _, step in self.figures if known == name} | ({0} if name in self.came else set())

    def settings(self, values):
        self.asked.append(dict(values))

    def figure(self, name, value, step):
        self.figures.append((name, value, step))

    def final(self, figures):
        self.came.update(figures)

    def file(self, path):
        assert path.stat().st_size > 0
        self.files.append(path.name)

    def close(self, status):
        self.ended.append(status)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def book(monkeypatch):
    found = Book()
    monkeypatch.setattr(trackers.tensorboard, "TensorBoard", lambda folder: found)
    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", lambda: None)
    return found


def run(data, folder, steps=STEPS, budget="macs=0.6x", **options):
    return penjing.run(tiny(), data, steps, budget, folder=folder, track="tensorboard", **options)


def steps_of(book, name):
    return [step for known, _, step in book.figures if known == name]


def test_a_run_tells_each_epoch_what_it_was_asked_and_what_it_came_to(data, tmp_path, book):
    result = run(data, tmp_path / "run", references=("random",))
    rows = result.results["training"]
    assert [value for name, value, _ in book.figures if name == "val/accuracy"] == [r["val_accuracy"] for r in rows]
    for name in ("train/loss", "train/lr", "val/loss", "val/accuracy"):
        assert steps_of(book, name) == [1, 2, 3, 4], "the second training counts on, the reference is not told"
    (asked,) = book.asked
    assert asked["budget.macs"] == "0.6x" and asked["steps.01.prune.criterion"] == "l1" and asked["seed"] == 0
    assert book.came["penjing/macs"] == result.results["rows"][1]["macs"] and book.came["budget/macs/met"] == 1.0
    assert {"original/accuracy", "cut-at-random-same-widths/speed-up", "penjing/latency_ms"} <= set(book.came)
    assert book.files == ["model.onnx", "report.html", "results.json"] and book.ended == ["finished"]


def test_epochs_are_told_as_they_end(data, tmp_path, book, monkeypatch):
    honest, seen = train._tell, []
    monkeypatch.setattr(train, "_tell", lambda *args: (honest(*args), seen.append(len(book.figures))))
    run(data, tmp_path / "run", [prune(criterion="l1"), FIT])
    assert seen == [4, 8], "four figures an epoch, before the next one begins"


def test_nothing_is_told_twice_when_a_run_goes_on(data, tmp_path, book, monkeypatch):
    """Killed after an epoch of the second training, then once more before its results are written."""
    place, honest = tmp_path / "run", train._tell

    def tell(self, row, run):
        honest(self, row, run)
        if len(steps_of(book, "val/loss")) == 3:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(train, "_tell", tell)
        with pytest.raises(Killed):
            run(data, place)
    with monkeypatch.context() as patch:
        patch.setattr("penjing.api.publish", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run(data, place)
    came = dict(book.came)
    run(data, place)
    assert book.came == came
    assert set(Counter((name, step) for name, _, step in book.figures).values()) == {1}
    assert steps_of(book, "train/loss") == [1, 2, 3, 4] and book.ended == ["stopped", "finished", "finished"]


def test_a_run_that_fails_says_so(data, tmp_path, book):
    with pytest.raises(Infeasible):
        run(data, tmp_path / "run", budget="macs=0.0001x")
    assert book.ended == ["failed"] and book.came == {}


def test_a_tracker_that_breaks_ends_no_run_and_changes_no_weight(data, tmp_path, book, monkeypatch, capsys):
    whole = penjing.run(tiny(), data, STEPS, "macs=0.6x", folder=tmp_path / "untracked")
    monkeypatch.setattr(book, "figure", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
    told = run(data, tmp_path / "tracked")
    assert form.same(form.tensors(whole.model), form.tensors(told.model))
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("Tracking by tensorboard ends here, and the run goes on without: OSError: the disk is full.") == 1
    assert book.files == [] and book.ended == []


def test_trials_are_counted_for_each_search():
    book = Book()
    tracker = Tracker("tensorboard", book)
    made = [
        {"step": step, "trial": i, "costs": {"error": error, "macs": 9.0}, "minimise": "error", "met": error < 5}
        for step in ("02-prune", "04-prune")
        for i, error in enumerate((7.0, 4.0, float("nan")), 1)
    ]
    for trial, best in zip(made[:4], (None, 4.0, 4.0, None), strict=True):
        tracker.hear({"event": "trial", "best": best, **trial})
    tracker.catch_up({"trials": made})
    assert [(v, s) for n, v, s in book.figures if n == "trials/02-prune/error"] == [(7.0, 1), (4.0, 2)]
    assert [(v, s) for n, v, s in book.figures if n == "trials/04-prune/met"] == [(0.0, 1), (1.0, 2), (0.0, 3)]
    for search in ("02-prune", "04-prune"):
        found = [(v, s) for n, v, s in book.figures if n == f"trials/{search}/best"]
        assert found == [(4.0, 2), (4.0, 3)], "once as it came, once as it was filed; none before one within the bounds"
    tracker.hear({"event": "remark", "text": "Nothing that a figure shows."})
    assert len(book.figures) == 20


def test_what_cannot_be_tracked_is_refused_before_anything_starts(data, tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match=r"no tracker 'tensorbord'\. Did you mean 'tensorboard'"):
        penjing.run(tiny(), data, STEPS, "macs=0.6x", folder=tmp_path / "run", track="tensorbord")
    with pytest.raises(PlanError, match="needs a folder that stays"):
        penjing.run(tiny(), data, STEPS, "macs=0.6x", track="mlflow")
    for library, name in (("mlflow", "mlflow"), ("torch.utils.tensorboard", "tensorboard")):
        monkeypatch.setitem(__import__("sys").modules, library, None)
        with pytest.raises(MissingExtra, match=rf"Tracking by {name} needs {name}: pip install 'penjing\[{name}\]'"):
            penjing.run(tiny(), data, STEPS, "macs=0.6x", folder=tmp_path / "run", track=name)
    assert not (tmp_path / "run").exists()


def test_the_shell_names_the_tracker_that_it_does_not_know(data, tmp_path):
    said = CliRunner().invoke(
        app, ["compress", "tiny:tiny", str(data), "--budget", "macs=0.5x", "--track", "wandb", "--out", str(tmp_path)]
    )
    assert said.exit_code == 2 and "There is no tracker 'wandb'. Known: mlflow, tensorboard." in said.stderr


def test_events_of_an_earlier_run_go_and_other_files_stay(data, tmp_path):
    events = tmp_path / "run" / "tensorboard"
    events.mkdir(parents=True)
    (events / "events.out.tfevents.1.host.1.0").write_bytes(b"old")
    (events / "notes.txt").write_text("mine")
    penjing.run(tiny(), data, [prune(criterion="l1"), "export"], "macs=0.6x", folder=Path(tmp_path / "run"))
    assert [file.name for file in events.iterdir()] == ["notes.txt"]
