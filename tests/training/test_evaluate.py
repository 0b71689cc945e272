import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from penjing.core.errors import TrainError
from penjing.training.evaluate import Metrics, evaluate, near_chance

from .toys import Normed, ToySplit, built, toy, weights


class Echo(nn.Module):
    """Return the first pixels as logits, in whatever wrapping a test asks for."""

    def __init__(self, wrap=lambda logits: logits, classes=4):
        super().__init__()
        self.wrap, self.classes = wrap, classes

    def forward(self, x):
        return self.wrap(x.flatten(1)[:, : self.classes])


def hand_made() -> ToySplit:
    """Logits whose loss and accuracy are computed by hand: 2 of 3 right."""
    x = np.zeros((3, 1, 2, 2), np.float32)
    x[0, 0, 0, 0] = math.log(2)  # class 0: p = 2/5
    x[1, 0, 1, 1] = math.log(7)  # class 3: p = 7/10
    x[2, 0, 0, 0] = math.log(3)  # class 1: p = 1/6, wrong
    return ToySplit(x, np.array([0, 3, 1]))


def test_hand_computed():
    metrics = evaluate(Echo(), hand_made(), batch=2)
    assert (metrics.correct, metrics.count) == (2, 3)
    assert metrics.accuracy == pytest.approx(200 / 3)
    assert metrics.error == pytest.approx(100 / 3)
    assert metrics.loss == pytest.approx(-(math.log(2 / 5) + math.log(7 / 10) + math.log(1 / 6)) / 3)


@pytest.mark.parametrize("wrap", [lambda z: (z, z * 0), lambda z: {"logits": z}, lambda z: [None, {"a": (z,)}]])
def test_takes_the_first_tensor(wrap):
    assert evaluate(Echo(wrap), hand_made()) == evaluate(Echo(), hand_made())


def test_takes_logits_by_name_and_refuses_to_guess():
    wanted = evaluate(Echo(), hand_made())
    assert evaluate(Echo(lambda z: {"features": 0 * z, "logits": z}), hand_made()) == wanted
    with pytest.raises(TrainError, match="'features', 'scores'"):
        evaluate(Echo(lambda z: {"features": 0 * z, "scores": z}), hand_made())


@pytest.mark.parametrize(
    ("correct", "count", "classes", "near"),
    [(10, 100, 10, True), (19, 100, 10, True), (20, 100, 10, False), (0, 100, 10, True), (93, 100, 10, False),
     (545, 1000, 2, True), (548, 1000, 2, False), (100, 100, 1, False)],
)  # fmt: skip
def test_guessing_is_told_from_knowing(correct, count, classes, near):
    # One sigma is 3 of 100 for ten classes and 15.8 of 1,000 for two.
    assert near_chance(Metrics(correct, count, 1.0), classes) is near


def test_runs_in_evaluation_mode_and_changes_nothing():
    model, split = built(Normed), toy(30)
    model.train()
    model.bn.eval()
    before = weights(model)
    metrics = evaluate(model, split, batch=7)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert (model.training, model.bn.training, model.drop.training) == (True, False, True)
    model.eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(split.x))
    labels = torch.from_numpy(split.labels)
    assert metrics.correct == int((logits.argmax(1) == labels).sum())
    assert metrics.loss == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-6)


def test_modes_come_back_after_an_error():
    model = built(Normed)
    with pytest.raises(RuntimeError):
        evaluate(model, ToySplit(np.zeros((2, 5, 6, 6), np.float32), np.array([0, 1])))
    assert model.training


@pytest.mark.parametrize(
    ("model", "split", "words"),
    [
        (Echo(), toy(0), "0 samples"),
        (Echo(), toy(4, labelled=False), "no labels"),
        (Echo(lambda z: "logits"), toy(4), "str"),
        (Echo(lambda z: z[:, :, None]), toy(4), r"\[4, 4, 1\]"),
        (Echo(lambda z: z[:-1]), toy(4), r"\[3, 4\]"),
        (Echo(classes=2), toy(40), "2 outputs and the labels go up to 3"),
    ],
)
def test_says_what_is_wrong(model, split, words):
    with pytest.raises(TrainError, match=words):
        evaluate(model, split)


def test_labels_that_do_not_need_every_output_are_fine():
    split = hand_made()
    assert evaluate(Echo(), replace(split, labels=np.array([0, 0, 0]))).count == 3


def test_metrics_are_plain_values():
    assert Metrics(1, 4, 0.5) == Metrics(correct=1, count=4, loss=0.5)
