"""The event files of a real run, read back as TensorBoard reads them."""

from itertools import accumulate

import pytest

import penjing
from penjing.core.journal import Journal
from penjing.steps.prune import prune
from tiny import tiny
from tracking.conftest import Killed

pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install 'penjing[tensorboard]'")


def test_events_of_a_run_that_went_on_hold_each_thing_once(stopped_once, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = stopped_once(tmp_path / "run", "tensorboard")
    folder = tmp_path / "run" / "tensorboard"
    assert len(list(folder.iterdir())) == 3, "two processes, and the page HParams"
    events = EventAccumulator(str(folder))
    events.Reload()
    told = [(event.step, event.value) for event in events.Scalars("val/accuracy")]
    rows = result.results["training"]
    assert told == [(i, pytest.approx(row["val_accuracy"])) for i, row in enumerate(rows, 1)]
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]
    (macs,) = events.Scalars("penjing/macs")
    assert macs.value == result.results["rows"][1]["macs"]
    (settings,) = events.Tensors("settings/text_summary")
    assert "| budget.macs | 0.6x |" in settings.tensor_proto.string_val[0].decode()
    assert not (tmp_path / "run" / "unfinished").exists()


def test_a_search_can_be_watched_and_goes_on_where_it_was_killed(data, tmp_path, monkeypatch):
    """The best so far falls, trial after trial, as the driver tells them; a kill leaves no gap and nothing twice."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    steps = [prune(criterion="l1", step=1, allocator={"random": {"trials": 16}})]
    found = Journal.found

    def dies(self, name, value):
        if name.endswith("trial 3"):
            raise Killed
        return found(self, name, value)

    def searched():
        return penjing.run(tiny(), data, steps, "macs=0.6x", folder=tmp_path / "run", track="tensorboard").results

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "found", dies)
        with pytest.raises(Killed):
            searched()
    trials = searched()["trials"]
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    told = {event.step: event.value for event in events.Scalars("trials/02-prune/best")}
    errors = [trial["costs"]["error"] for trial in trials]
    assert told == pytest.approx(dict(enumerate(accumulate(errors, min), 1)))
    assert len(events.Scalars("trials/02-prune/error")) == len(trials) > 3
