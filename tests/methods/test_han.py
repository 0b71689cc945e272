"""Han et al.: threshold and retrain in rounds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from penjing.core.errors import PlanError
from penjing.core.sites import Site, Slot
from penjing.criteria.deviation import deviation
from penjing.methods.han import han


def test_the_share_left_falls_by_the_same_factor_each_round() -> None:
    shares = [float(step["prune"]["budget"]["nonzero"].rstrip("x")) for step in han(0.9, rounds=5)()[:-1:2]]
    assert han()()[-1] == "remove_dead"
    assert shares == pytest.approx([0.1 ** (j / 5) for j in range(1, 6)], rel=1e-5)


@pytest.mark.parametrize("wrong", [{"sparsity": 1.0}, {"sparsity": 0.0}, {"rounds": 0}, {"epochs": 0}], ids=str)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match=rf"han: {next(iter(wrong))} .*got"):
        han(**wrong)


class Weights:
    """Evidence of one layer's weights."""

    def __init__(self, w: torch.Tensor) -> None:
        self.w = w

    def filters(self, _: Site) -> torch.Tensor:
        return self.w.reshape(-1, 1)


@pytest.mark.parametrize("q", [0.5, 1.0, 1.5, 2.0])
def test_of_normal_weights_a_quality_of_q_removes_what_erf_says(q: float) -> None:
    w = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.02
    every = np.arange(len(w))
    site = Site("w", "weights", len(w), (Slot("w", -1, "out", every, every),), np.arange(0))
    score = deviation(centred=False)(site, Weights(w))  # type: ignore[arg-type]
    assert float((score < q).double().mean()) == pytest.approx(math.erf(q / math.sqrt(2)), abs=0.005)


def test_the_deviation_is_that_of_the_survivors() -> None:
    w = torch.tensor([0.0, 0.0, 1.0, -1.0, 2.0, -2.0], dtype=torch.float64)
    site = Site("w", "weights", 6, (Slot("w", -1, "out", np.arange(6), np.arange(6)),), np.arange(0))
    score = deviation(centred=False)(site, Weights(w))  # type: ignore[arg-type]
    assert score.tolist() == pytest.approx([0, 0, *(abs(x) / math.sqrt(2.5) for x in (1, -1, 2, -2))])
