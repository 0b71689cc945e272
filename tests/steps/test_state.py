"""What a run measures: again where a bound lies within the spread, once where it does not."""

from itertools import cycle

import pytest

from penjing.core.journal import Journal
from penjing.exporting.measure import summary
from penjing.exporting.runtimes.subject import Subject
from penjing.steps import state as states
from penjing.steps.state import REPEATS, Run

SUBJECTS = {"original": Subject("a.onnx"), "candidate": Subject("b.onnx")}


def fake(monkeypatch, *shares):
    """Measure the candidate at these shares of the original's time, a call after the other, each with its spread."""
    calls, turns = [], cycle(shares)

    def measure(subjects, **_):
        share = next(turns)
        calls.append(share)
        spread = [share * factor for factor in (0.98, 0.99, 1.0, 1.01, 1.02)]
        times = {"original": [1.0] * 5, "candidate": spread}
        return {name: summary(times[name], 1, 1, "cpu", "r", "c") for name in subjects}

    monkeypatch.setattr(states, "measure", measure)
    return calls


@pytest.mark.parametrize(
    ("limit", "times"), [(None, 1), (0.9, 1), (0.6, 1), (0.705, 1 + REPEATS)], ids=["asked", "kept", "missed", "close"]
)
def test_files_are_measured_again_while_a_bound_lies_within_their_spread(tmp_path, monkeypatch, limit, times):
    calls = fake(monkeypatch, 0.7)
    found = Run(tmp_path).measure("it", SUBJECTS, limit)
    assert len(calls) == times and len(found["candidate"].samples) == 5 * times


def test_all_rounds_count_and_what_they_decide_ends_it(tmp_path, monkeypatch):
    """The first is just above the bound, the second well below."""
    calls = fake(monkeypatch, 0.71, 0.6, 0.6)
    found = Run(tmp_path).measure("it", SUBJECTS, 0.705)
    assert calls == [0.71, 0.6, 0.6, 0.71] and found["candidate"].median_ms == pytest.approx(0.66, abs=0.06)
    assert sorted(found["original"].samples) == [1.0] * 20


def test_a_run_that_goes_on_knows_what_was_measured(tmp_path, monkeypatch):
    calls, path = fake(monkeypatch, 0.7), tmp_path / "journal"
    first = Run(tmp_path, journal=Journal(path)).measure("it", SUBJECTS, 0.7)
    assert Run(tmp_path, journal=Journal(path)).measure("it", SUBJECTS, 0.7) == first
    assert len(calls) == 1 + REPEATS
