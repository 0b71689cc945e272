"""The event files of a real run, read back as TensorBoard reads them."""

import pytest

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
