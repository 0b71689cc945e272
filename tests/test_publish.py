"""A folder shows one finished run, whole."""

import json

import pytest

from penjing.core.errors import PlanError
from penjing.publish import aside, publish


def put(place, **files):
    with aside(place) as hidden:
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
        with pytest.raises(ZeroDivisionError), aside(place) as hidden:
            (hidden / "a.onnx").write_text("half")
            raise ZeroDivisionError
    assert sorted(p.name for p in (tmp_path / "old").iterdir()) == ["a.onnx", "results.json"]
    assert (tmp_path / "old" / "a.onnx").read_text() == "first" and not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PlanError, match="cannot be made or written to"), aside(tmp_path / "file" / "run"):
        pass
