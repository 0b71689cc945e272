"""A folder shows one finished run, whole."""

import json
import os

import pytest

from penjing.core.errors import PenjingError, PlanError, ResumeError
from penjing.publish import publish, read_run, unfinished


def put(place, **files):
    with unfinished(place, {"seed": 0}) as hidden:
        for name, text in files.items():
            (hidden / name.replace("_", ".")).write_text(text)
        publish(hidden, place)


def test_a_later_run_replaces_an_earlier_one_and_nothing_else(tmp_path):
    listed = json.dumps({"files": {"a.onnx": 1, "../mine.onnx": 1, "notes.txt": 1}})
    (tmp_path / "mine.onnx").write_text("mine")
    place = tmp_path / "run"
    put(place, a_onnx="first", results_json=listed, report_html="first")
    (place / "notes.txt").write_text("mine")
    (place / "other.onnx").write_text("mine")
    put(place, b_onnx="second", results_json="{}", report_html="second")
    assert sorted(p.name for p in place.iterdir()) == [
        "b.onnx",
        "notes.txt",
        "other.onnx",
        "report.html",
        "results.json",
    ]
    assert (place / "report.html").read_text() == "second" and (tmp_path / "mine.onnx").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}', "[" * 100_000, '{"files": null}'])
def test_what_an_earlier_run_left_may_be_anything(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    put(tmp_path, results_json="{}", a_onnx="x")
    assert (tmp_path / "results.json").read_text() == "{}"


def test_a_run_that_fails_leaves_the_folder_as_it_was(tmp_path):
    put(tmp_path / "old", a_onnx="first", results_json="{}")
    for place in (tmp_path / "old", tmp_path / "new" / "deep"):
        with pytest.raises(PenjingError), unfinished(place, {"seed": 0}) as hidden:
            (hidden / "a.onnx").write_text("half")
            raise PenjingError("no plan meets the budget")
    assert sorted(p.name for p in (tmp_path / "old").iterdir()) == ["a.onnx", "results.json"]
    assert (tmp_path / "old" / "a.onnx").read_text() == "first" and not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PlanError, match="cannot be made or written to"), unfinished(tmp_path / "file" / "run", {}):
        pass


def full():
    raise PenjingError("model.onnx cannot be written") from OSError(28, "No space left on device")


@pytest.mark.parametrize("what", [KeyboardInterrupt, ZeroDivisionError, full])
def test_a_run_that_may_end_otherwise_next_time_stays(tmp_path, what):
    place = tmp_path / "run"
    with (
        pytest.raises((KeyboardInterrupt, ZeroDivisionError, PenjingError)),
        unfinished(place, {"seed": 0}, ["run"]) as work,
    ):
        (work / "done").write_text("half")
        if what is full:
            full()
        raise what
    assert read_run(place)["command"] == ["run"]
    with unfinished(place, {"seed": 0}) as work:
        assert (work / "done").read_text() == "half"
    assert not (place / "unfinished").exists()


def test_another_run_is_not_gone_on_with(tmp_path):
    with pytest.raises(KeyboardInterrupt), unfinished(tmp_path, {"seed": 0, "steps": ["a"]}):
        raise KeyboardInterrupt
    with (
        pytest.raises(ResumeError, match=r"unfinished run with another steps \(\[\"a\"\], now \[\"b\"\]\)"),
        unfinished(tmp_path, {"seed": 0, "steps": ["b"]}),
    ):
        pass
    assert (tmp_path / "unfinished").exists()


def test_two_processes_in_one_folder(tmp_path):
    with (
        unfinished(tmp_path, {}),
        pytest.raises(ResumeError, match=rf"process {os.getpid()} on .* is at work; wait for it"),
        unfinished(tmp_path, {}),
    ):
        pass


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"identity": 1, "command": []}', "[" * 100_000])
def test_a_run_that_cannot_be_read(tmp_path, text):
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "run.json").write_text(text)
    with pytest.raises(ResumeError, match=r"run.json cannot be read"):
        read_run(tmp_path)


def test_no_run(tmp_path):
    with pytest.raises(ResumeError, match=r"holds no unfinished run\.$"):
        read_run(tmp_path)
    put(tmp_path, results_json="{}")
    with pytest.raises(ResumeError, match="holds no unfinished run: its run is done"):
        read_run(tmp_path)
