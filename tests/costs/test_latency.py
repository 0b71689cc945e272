from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from penjing.costs import latency as module
from penjing.costs.latency import latency
from penjing.exporting.measure import Timing, summary
from penjing.exporting.session import fixed_batch, session

from .drafts import FakeDraft


def test_the_drafts_own_model_is_exported_and_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def fake(paths: Mapping[str, Path], **options: Any) -> dict[str, Timing]:
        ((name, path),) = paths.items()
        running = session(path)
        seen.update(options, path=path, batch_of_file=fixed_batch(running), input=running.get_inputs()[0].shape)
        return {name: summary([1.0, 3.0, 2.0], 1, 1, "cpu", "r", "c")}

    monkeypatch.setattr(module, "measure", fake)
    draft = FakeDraft(example=((torch.zeros(4, 3, 8, 8),), {}), net=nn.Conv2d(3, 4, 3))
    assert latency(threads=2, batch=6)(draft) == 2.0
    assert (seen["threads"], seen["batch"], seen["batch_of_file"]) == (2, 6, 6)
    assert seen["input"] == [6, 3, 8, 8]
    assert not seen["path"].exists()


def test_a_real_measurement_is_a_positive_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.0)
    draft = FakeDraft(example=((torch.zeros(1, 3, 8, 8),), {}), net=nn.Conv2d(3, 4, 3))
    assert latency()(draft) > 0
