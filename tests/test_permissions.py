"""A permission that is missing, or is lost on the way, is one sentence; a run goes on once it is back."""

import contextlib
import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import penjing as package
from penjing.cli import app
from penjing.graph import form
from test_bad_input import lying, polite
from tiny import pictures, tiny
from unprivileged import needs_permissions, penjing

COMPRESS = ["compress", "tiny:tiny", "pictures", "--budget=macs=0.6x", "--criterion=l1", "--epochs=1", "--quiet"]

LOSE = """
import os
from pathlib import Path

def lose(*names):
    for name in names:
        path = Path(name)
        if path.exists():
            path.chmod(0o555 if path.is_dir() else 0o444)
"""

AT_LINE = (
    LOSE
    + """
from penjing.core.journal import Journal

honest, seen = Journal.note, []

def note(self, event, **facts):
    honest(self, event, **facts)
    seen.append(event)
    if len(seen) == {count}:
        lose("out", "out/unfinished", "out/unfinished/journal.jsonl")

Journal.note = note
"""
)
"""The folder of the run turns read-only once its journal has so many lines."""

AT_PUBLISH = (
    LOSE
    + """
from penjing import api

honest = api.publish

def publish(hidden, place):
    lose(place)
    honest(hidden, place)

api.publish = publish
"""
)


@pytest.fixture
def desk(tmp_path):
    needs_permissions()
    (tmp_path / "pictures").mkdir()
    pictures(tmp_path / "pictures")
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that kept its permissions."""
    place = tmp_path_factory.mktemp("whole")
    (place / "pictures").mkdir()
    pictures(place / "pictures")
    with contextlib.chdir(place):
        ends_well(*COMPRESS, "--out", "out")
    return place / "out"


def ends_well(*words: str) -> None:
    """Run the shell here, where permissions do not matter any more."""
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, done.stderr) == (0, ""), done.stderr


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def give_back(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


CLOSED = [
    ("shelf", 0o555, [*COMPRESS, "--out", "shelf/out"], "shelf/out cannot be made or written to"),
    ("shelf", 0o555, [*COMPRESS, "--out", "shelf"], "shelf cannot be made or written to"),
    ("shelf", 0o000, [*COMPRESS, "--out", "shelf/out"], "shelf/out cannot be made or written to"),
    ("shelf", 0o000, ["compress", "tiny:tiny", "shelf", *COMPRESS[3:]], "shelf"),
    ("shelf", 0o000, ["compress", "tiny:tiny", "shelf/in", *COMPRESS[3:]], "shelf/in"),
    ("pictures/test.npz", 0o000, COMPRESS, "pictures/test.npz"),
    ("w.pt", 0o000, [*COMPRESS, "--weights", "w.pt"], "w.pt"),
    ("w.safetensors", 0o000, [*COMPRESS, "--weights", "w.safetensors"], "w.safetensors"),
    ("r.yaml", 0o000, ["run", "r.yaml"], "r.yaml"),
    ("shelf", 0o000, ["resume", "shelf"], "shelf"),
    ("shelf", 0o000, ["export", "shelf"], "shelf"),
    ("shelf", 0o000, ["report", "shelf"], "shelf"),
    ("shelf", 0o000, ["bench", "shelf/a.onnx"], "shelf/a.onnx"),
]
"""What is closed and how, the command, and what the sentence names."""

TOGETHER = """
import json, os, sys
from typer.testing import CliRunner
from penjing.cli import app

for folder, closed, mode, words in json.loads(sys.argv[1]):
    os.chdir(folder)
    os.chmod(closed, mode)
    done = CliRunner().invoke(app, words)
    os.chmod(closed, 0o755)
    print(json.dumps([done.exit_code, done.stderr]), file=sys.stderr)
sys.exit()
"""


def test_a_missing_permission_is_one_sentence(tmp_path):
    """In one process, since starting one takes longer than the commands."""
    needs_permissions()
    desks, before = [], []
    for i, _ in enumerate(CLOSED):
        place = tmp_path / str(i)
        (place / "shelf").mkdir(parents=True)
        (place / "pictures").mkdir()
        pictures(place / "pictures")
        for name in ("w.pt", "w.safetensors", "r.yaml"):
            (place / name).write_bytes(b"\0" * 64)
        desks.append(place)
        before.append(lying(place))
    rows = [(str(desk), closed, mode, words) for desk, (closed, mode, words, _) in zip(desks, CLOSED, strict=True)]
    code, told = penjing(json.dumps(rows), cwd=tmp_path, before=TOGETHER)
    assert code == 0, told
    answers = [json.loads(line) for line in told.splitlines()]
    for (_, _, words, says), (ended, said), desk, was in zip(CLOSED, answers, desks, before, strict=True):
        assert ended == 2, (words, said)
        polite(said)
        assert says in said and ("ermission" in said or "not readable" in said), (words, said)
        assert lying(desk) == was, words


def test_a_folder_that_turns_read_only_during_a_run(desk, whole):
    code, said = penjing(*COMPRESS, "--out", "out", cwd=desk, before=AT_LINE.format(count=8))
    assert code == 2
    polite(said)
    assert "out/unfinished" in said and "Permission denied" in said
    assert not (desk / "out" / "results.json").exists() and (desk / "out" / "unfinished" / "run.json").exists()
    give_back(desk / "out")
    with contextlib.chdir(desk):
        ends_well("resume", "out")
    assert (desk / "out" / "model.onnx").read_bytes() == (whole / "model.onnx").read_bytes()
    assert names(desk / "out") == names(whole)


def test_a_permission_lost_when_the_results_are_put_into_place(desk, whole):
    code, said = penjing(*COMPRESS, "--out", "out", cwd=desk, before=AT_PUBLISH)
    assert code == 2 and "The results cannot be put into out: Permission denied" in said
    polite(said)
    assert names(desk / "out") == ["unfinished"]
    give_back(desk / "out")
    with contextlib.chdir(desk):
        ends_well("resume", "out")
    assert (desk / "out" / "model.onnx").read_bytes() == (whole / "model.onnx").read_bytes()
    assert names(desk / "out") == names(whole)


def test_a_clock_that_jumps_back_harms_nothing(tmp_path, monkeypatch):
    """Every look at the clock shows an hour less than the one before."""
    data = pictures(tmp_path)
    steps = [{"prune": {"criterion": "l1"}}, {"train": {"epochs": 1}}, "export", "check"]
    honest = package.run(tiny(), data, steps, "macs=0.6x", folder=tmp_path / "honest")
    looks, now, local, written = [0], time.time, time.localtime, time.strftime

    def earlier() -> float:
        looks[0] += 1
        return now() - 3_600 * looks[0]

    with monkeypatch.context() as patch:
        patch.setattr(time, "time", earlier)
        patch.setattr(time, "localtime", lambda seconds=None: local(earlier() if seconds is None else seconds))
        patch.setattr(time, "strftime", lambda form, *moment: written(form, *(moment or (local(earlier()),))))
        found = package.run(tiny(), data, steps, "macs=0.6x", folder=tmp_path / "jumping")
        package.run(tiny(), data, steps, "macs=0.6x", folder=tmp_path / "jumping")
    assert looks[0]
    assert form.same(form.tensors(honest.model), form.tensors(found.model))
    results = json.loads((tmp_path / "jumping" / "results.json").read_text())
    assert 0 <= results["seconds"] < 3_600 and all(stage["seconds"] >= 0 for stage in results["stages"])
