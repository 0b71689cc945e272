from dataclasses import replace
from typing import Any

from penjing.report import record
from penjing.report.results import read


def test_a_certificate_says_what_it_claims(results: dict[str, Any]) -> None:
    known = read(results).certificates[0]
    assert record.claim(known).endswith("is silenced in it (64 pictures).")
    assert record.claim(replace(known, name="mine")) == "64 pictures"


def test_parts_pinned_for_one_reason_are_told_together(results: dict[str, Any]) -> None:
    why = {"why": "zero-padded", "line": "net.py:4"}
    results["pinned"] = [
        {"where": "a", "units": 16, **why},
        {"where": "b", "units": 8, "why": "sorted", "line": ""},
        {"where": "c", "units": 16, **why},
        {"where": "d", "units": 32, **why},
    ]
    groups = record.pinned(read(results))
    assert [(group.said, group.detail, group.names) for group in groups] == [
        ("zero-padded", "net.py:4", ("a", "c (16\u00a0channels each)")),
        ("sorted", "", ("b (8\u00a0channels)",)),
        ("zero-padded", "net.py:4", ("d (32\u00a0channels)",)),
    ]


def test_layers_of_one_verdict_are_told_together(results: dict[str, Any]) -> None:
    verdict = "the criterion l1 carries no information here"
    results["diagnostics"] = [{"layer": name, "verdict": verdict, "spread": 0.0312} for name in ("a", "b")]
    (group,) = record.diagnostics(read(results))
    assert (group.said, group.detail, group.names) == (verdict, "spread", ("a (0.0312)", "b (0.0312)"))
    assert "by lot" in record.explained(verdict) and record.explained("odd") == ""


def test_teaching_is_told_for_each_training(results: dict[str, Any]) -> None:
    how = {"epochs": 12, "lr": 0.02, "optimizer": "sgd", "batch": 64, "terms": ["soft_targets()", "hints()"]}
    results["trained"] = [how | {"device": "cpu", "keep": "best"}, {"epochs": 1}]
    assert record.teaching(read(results)) == [
        "12 epochs, peak learning rate 0.02 (sgd), batches of 64, taught by soft_targets() and hints(), on cpu. "
        "The weights of the best epoch were kept.",
        "1 epoch.",
    ]


def test_a_run_that_went_on_says_so(results: dict[str, Any]) -> None:
    assert record.stops(read(results)) == ""
    results["resumed"] = [
        {"at": "2026-11-07T15:00:00", "after": "03-train"},
        {"at": "2026-11-07T16:00:00", "after": ""},
    ]
    told = record.stops(read(results))
    assert "went on twice (2026-11-07 15:00, after step 3, train; 2026-11-07 16:00, from its first step)" in told


def test_pictures_are_counted(results: dict[str, Any]) -> None:
    assert record.pictures(read(results)) == ""
    results["data"] = {"name": "digits", "train": 1293, "val": 144, "classes": 10}
    told = record.pictures(read(results))
    assert told == "digits: 1,293 pictures to train, 144 to validate, 360 to test, 10 classes"


def test_steps_are_one_line_each_with_every_option(results: dict[str, Any]) -> None:
    results["steps"] = [{"prune": {"criterion": "l1", "include": ["*"], "step": None}}, {"export": {}}, "odd"]
    assert record.steps(read(results)).splitlines() == [
        "- prune: {criterion: l1, include: [*], step: null}",
        "- export: {}",
        "- odd",
    ]
