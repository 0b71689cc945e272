from __future__ import annotations

import numpy as np
import torch

from .nets import Mixed, evidence, score, shaken
from .test_deviation import layer
from .test_magnitude import filters


def scores(w: torch.Tensor) -> torch.Tensor:
    return score("lamp", evidence(layer(w), example=torch.randn(2, w.shape[1])), "0.weight")


def test_weights_1_2_3() -> None:
    assert np.allclose(scores(torch.tensor([[2.0, -3.0, 1.0]])), [4 / 13, 1, 1 / 14], rtol=1e-14)


def test_scores_against_the_sum_over_all_larger_weights() -> None:
    w = torch.randn(7, 9, generator=torch.Generator().manual_seed(0))
    squares = w.double().flatten().numpy() ** 2
    assert np.allclose(scores(w), [s / squares[squares >= s].sum() for s in squares])
    assert torch.equal(scores(w).argsort(), w.flatten().abs().argsort())


def test_the_largest_weight_of_every_layer_scores_one() -> None:
    given = evidence(shaken(Mixed()))
    for name in ("stem.weight", "inner.weight", "head.weight", "depthwise.weight"):
        found = score("lamp", given, name)
        assert found.max() == 1 and (found < 1).sum() == len(found) - 1


def test_zeros_and_ties() -> None:
    assert not scores(torch.zeros(3, 4)).any()
    assert scores(torch.tensor([[0.0, 1.0, 1.0]])).tolist() == [0, 0.5, 1]


def test_a_channel_counts_with_the_squared_norm_of_its_filter() -> None:
    given = evidence(filters([2, 2, 1], [0, 1, 0], [0, 0, 2]))
    assert np.allclose(score("lamp", given, "0"), [1, 1 / 14, 4 / 13])
