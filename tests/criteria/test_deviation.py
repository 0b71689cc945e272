from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from penjing.core.errors import PlanError

from .nets import Mixed, evidence, score, shaken


def layer(w: torch.Tensor) -> nn.Module:
    linear = nn.Linear(w.shape[1], w.shape[0], bias=False)
    linear.weight.data = w
    return nn.Sequential(linear, nn.ReLU(), nn.Linear(w.shape[0], 2))


def scores(w: torch.Tensor) -> torch.Tensor:
    return score("deviation", evidence(layer(w), example=torch.randn(2, w.shape[1])), "0.weight")


def test_deviation_by_hand() -> None:
    # Mean 2, population deviation 2.
    found = scores(torch.tensor([[1.0, 1.0, 1.0], [1.0, 6.0, 2.0]]))
    mean, std = 2.0, math.sqrt((4 * 1 + 16 + 0) / 6)
    assert np.allclose(found, np.abs(np.array([1, 1, 1, 1, 6, 2]) - mean) / std)


def test_the_rule_prunes_the_predicted_share_of_normal_weights_around_their_mean() -> None:
    w = torch.randn(1000, 1000, generator=torch.Generator().manual_seed(0)) * 0.02 + 0.1
    found = scores(w)
    flat = w.flatten()
    for k, share in ((0.5, 0.3829), (1.0, 0.6827), (1.2816, 0.8), (2.0, 0.9545), (3.0, 0.9973)):
        gone = flat[found <= k]
        assert abs(len(gone) / 1e6 - share) < 0.002
        assert abs(float(gone.min() + gone.max()) / 2 - 0.1) < 1e-3


def test_removed_weights_neither_come_back_nor_narrow_the_next_round() -> None:
    w = torch.randn(40, 50, generator=torch.Generator().manual_seed(1)) * 0.02 + 0.1
    first = scores(w)
    left = w.clone()
    left.view(-1)[first <= 1] = 0
    second = scores(left)
    survivors = w.flatten()[first > 1].double()
    expected = (survivors - survivors.mean()).abs() / survivors.std(correction=0)
    assert torch.allclose(second[first > 1], expected)
    assert not second[first <= 1].any()


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_equal_weights_do_not_deviate(value: float) -> None:
    assert not scores(torch.full((4, 5), value)).any()


def test_channels_have_no_deviation() -> None:
    with pytest.raises(PlanError, match="deviation scores weights, but stem is a site of channels; use l1"):
        score("deviation", evidence(shaken(Mixed())), "stem")
