"""The divergence against what it is by hand, on logits and on maps, with and without batch norm."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

from penjing.core.errors import RecipeError
from penjing.costs.divergence import divergence
from penjing.data import digits

from .drafts import FakeDraft
from .test_error import Points


def linear(outs: int, seed: int) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(4, outs)


def test_it_is_the_mean_kl_divergence_of_the_classes() -> None:
    split, original, cut = Points(40), linear(3, 0), linear(3, 1)
    found = divergence(split, batch=16).beside(original)(FakeDraft(net=cut))
    with torch.no_grad():
        p, q = original(split.x).softmax(1), cut(split.x).softmax(1)
    assert found == pytest.approx(float((p * (p / q).log()).sum(1).mean()), rel=1e-5)


def test_of_other_answers_it_is_the_relative_squared_distance() -> None:
    class Maps(nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [self.scale * x[:, None, None], 3 * x[:, :, None]]

        def __init__(self, scale: float) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(scale))

    found = divergence(Points(40)).beside(Maps(2.0))(FakeDraft(net=Maps(3.0)))
    assert found == pytest.approx(0.25 / 2)


def test_one_column_is_no_logit() -> None:
    original, cut = linear(1, 0), linear(1, 0)
    with torch.no_grad():
        cut.weight.mul_(2), cut.bias.mul_(2)
    assert divergence(Points(40)).beside(original)(FakeDraft(net=cut)) == pytest.approx(1.0, rel=1e-5)


def test_the_original_is_no_distance_away_and_keeps_its_mode() -> None:
    net = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), linear(3, 0)).train()
    cost = divergence(Points(40)).beside(net)
    assert cost(FakeDraft(net=net)) == 0.0 and net.training


def test_recalibration_takes_training_pictures_first() -> None:
    split, training = Points(40, shift=3.0), Points(40, shift=5.0)
    norm = nn.BatchNorm1d(4)
    cost = divergence(split, recalibrate=1, calibration=training, batch=20).beside(norm)
    cost(FakeDraft(net=norm))
    torch.testing.assert_close(norm.running_mean, training.x[:20].mean(0))


def test_it_reads_a_data_set_and_travels_with_the_answers() -> None:
    data = digits()
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    assert divergence().fits(data)
    cost = divergence(images=50, recalibrate=1).on(data, seed=0).beside(net)
    assert [list(theirs.shape) for theirs in cost.theirs] == [[50, 10]]
    assert pickle.loads(pickle.dumps(cost))(FakeDraft(net=net)) == 0.0


def test_what_is_missing_is_named() -> None:
    with pytest.raises(RecipeError, match=r"divergence needs validation data"):
        divergence().beside(linear(3, 0))
    with pytest.raises(RecipeError, match=r"divergence needs the original"):
        divergence(Points(4))(FakeDraft(net=linear(3, 0)))
    with pytest.raises(RecipeError, match=r"\[\[4, 2\]\], the original's \[\[4, 3\]\]"):
        divergence(Points(4)).beside(linear(3, 0))(FakeDraft(net=linear(2, 0)))
