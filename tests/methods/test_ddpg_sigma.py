"""Combined pruning: a searched share of the convolutions' weights, three deviations for linear layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import penjing
from penjing.core.errors import PlanError
from penjing.methods.ddpg_sigma import ddpg_sigma
from tiny import pictures, skilled


@pytest.mark.parametrize(
    "wrong", [{"sparsity": 1.0}, {"sparsity": 0.0}, {"k": -1.0}, {"trials": 0}, {"epochs": 0}], ids=str
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match=rf"ddpg_sigma: {next(iter(wrong))} .*got"):
        ddpg_sigma(**wrong)


def counts(model: nn.Module, kind: type[nn.Module]) -> tuple[int, int]:
    """Return how many weights of layers of this kind there are, and how many are not zero."""
    weights = [m.weight for m in model.modules() if isinstance(m, kind)]
    return sum(w.numel() for w in weights), sum(int((w != 0).sum()) for w in weights)  # type: ignore[operator,union-attr,misc,arg-type]


def test_convolutions_keep_their_share_and_linear_layers_their_outliers(tmp_path: Path) -> None:
    original = skilled()
    weight = original.get_parameter("linear.weight").detach().double()
    expected = int(((weight - weight.mean()).abs() > weight.std(correction=0)).sum())
    assert 0 < expected < weight.numel() / 2
    run = penjing.run(original, pictures(tmp_path), [ddpg_sigma(sparsity=0.8, k=1.0, trials=3, epochs=1)])
    every, left = counts(run.model, nn.Conv2d)
    assert 0.2 * every - 2 <= left <= 0.2 * every, "a training of an epoch has not brought them back"
    assert counts(run.model, nn.Linear)[1] == expected
    assert run.results["rows"][1]["conv_weights"] == left
    assert not run.results["remarks"]


def test_a_small_linear_layer_is_ruined_and_named(tmp_path: Path) -> None:
    """Fewer than one weight for each of the seven neurons that a square layer of as many weights would have."""
    run = penjing.run(skilled(), pictures(tmp_path), [ddpg_sigma(k=3.0, trials=2, epochs=1)])
    (told,) = run.results["remarks"]
    assert "linear.weight is likely ruined: only 1 of its 48 weights are left" in told


def test_linear_layers_can_be_left_alone(tmp_path: Path) -> None:
    run = penjing.run(skilled(), pictures(tmp_path), [ddpg_sigma(k=None, trials=2, epochs=1)])
    assert counts(run.model, nn.Linear) == (48, 48) and not run.results["remarks"]
    assert torch.isfinite(run.model(torch.zeros(1, 3, 8, 8))).all()
