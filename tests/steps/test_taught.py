"""Who teaches by default."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

import penjing
from penjing.data import load
from tiny import pictures, skilled, tiny


@pytest.mark.parametrize(("network", "taught"), [(skilled, True), (tiny, False)], ids=["trained", "new"])
def test_an_original_that_can_only_guess_teaches_nobody(tmp_path: Path, network, taught) -> None:
    model: nn.Module = network()
    steps = [penjing.train(epochs=1, batch=16, lr=0.01)]
    found = penjing.run(model, load(pictures(tmp_path), seed=0), steps, threads=1)
    assert bool(found.results["trained"][0]["terms"]) == taught
