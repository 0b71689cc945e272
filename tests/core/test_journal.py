import json

import pytest

from penjing.core.errors import ResumeError
from penjing.core.journal import Journal


def fail():
    raise AssertionError("this was known")


def test_what_was_found_out_is_not_found_out_again(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    assert journal.recall("time", lambda: 0.1 + 0.2) == 0.1 + 0.2
    assert journal.recall("time", lambda: [1, None, {"a": 2.5}]) == [1, None, {"a": 2.5}]
    again = Journal(path)
    assert again.recall("time", fail) == 0.1 + 0.2, "to the bit"
    assert again.recall("time", fail) == [1, None, {"a": 2.5}]
    assert again.recall("time", lambda: "third") == "third"


def test_every_line_can_be_read(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.note("run begins", steps=3)
    journal.recall("latency of the original", lambda: {"median_ms": 1.5})
    first, second = map(json.loads, path.read_text().splitlines())
    assert first["event"] == "run begins" and first["steps"] == 3 and first["at"]
    assert (second["event"], second["name"], second["value"]) == (
        "found",
        "latency of the original",
        {"median_ms": 1.5},
    )


def test_events_are_counted_over_processes(tmp_path):
    path = tmp_path / "journal.jsonl"
    Journal(path).note("read")
    journal = Journal(path)
    journal.note("read")
    assert journal.count("read") == 2 and journal.count("other") == 0


def test_a_torn_last_line_goes(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    assert journal.found("a", 1) == 1 and journal.found("b", 2) == 2
    first, second = path.read_text().splitlines()
    for end in range(len(second)):
        path.write_text(f"{first}\n{second[:end]}")
        journal = Journal(path)
        assert journal.recall("a", fail) == 1 and journal.recall("b", lambda: 3) == 3
        assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize("line", ["nonsense", "[]", "{}", '{"event": "found"}', "[" * 100_000, "\ufeff{}"])
def test_a_file_that_is_no_journal_is_refused_by_line(tmp_path, line):
    path = tmp_path / "journal.jsonl"
    Journal(path).note("run begins")
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(ResumeError, match=r"journal.jsonl, line 2, is not a journal's line"):
        Journal(path)


def test_a_line_that_was_damaged_is_refused(tmp_path):
    path = tmp_path / "journal.jsonl"
    Journal(path).found("02-prune: trial 1", {"plan": "abc", "error": 12.5})
    path.write_text(path.read_text().replace("12.5", "2.5"))
    with pytest.raises(ResumeError, match=r"journal.jsonl, line 1, is not a journal's line"):
        Journal(path)


def test_what_is_no_json_is_not_written(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(TypeError):
        journal.recall("a", lambda: object())
    assert not (tmp_path / "journal.jsonl").exists() and journal.recall("a", lambda: 1) in (1,)


def test_without_a_path_nothing_is_kept():
    journal = Journal()
    journal.note("read")
    assert journal.recall("a", lambda: 1) == 1 and journal.count("read") == 1
