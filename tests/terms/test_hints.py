import copy

import numpy as np
import pytest
import torch
from torch import nn

from penjing.core.errors import TrainError
from penjing.core.protocols import Taught
from penjing.terms.distill import soft_targets
from penjing.terms.hints import hints


class Net(nn.Module):
    """Two stages of two convolutions each, and a head."""

    def __init__(self, inner: int = 6, stream: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, inner, 3, padding=1)
        self.one = nn.Sequential(nn.Conv2d(inner, stream, 3, padding=1), nn.BatchNorm2d(stream))
        self.down = nn.Conv2d(stream, inner, 3, padding=1, stride=2)
        self.two = nn.Sequential(nn.Conv2d(inner, stream, 3, padding=1), nn.ReLU(inplace=True))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(stream, 3)
        self.runs = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        x = self.two(self.down(self.one(self.stem(x)).relu()))
        return self.head(self.pool(x).flatten(1))


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def lesson(term: hints, model: nn.Module, teacher: nn.Module) -> torch.Tensor:
    term.teach(teacher)
    assert term.attach(model) == []
    loss = term(X, model(X), None)
    return loss


def test_compares_the_ends_of_stages_relative_to_their_size():
    model, teacher = Net(inner=3), Net()
    term = hints(weight=2.0)
    loss = lesson(term, model, teacher)
    teacher.eval()
    s = [model.one(model.stem(X))]
    t = [teacher.one(teacher.stem(X))]
    for net, found in ((model, s), (teacher, t)):
        found.append(net.two(net.down(found[0].relu())))
    by_hand = sum(
        ((a - b).square().sum() / (a.square().sum() + b.square().sum())).item() for a, b in zip(s, t, strict=True)
    )
    assert loss.item() == pytest.approx(2 * by_hand, rel=1e-5)
    assert term._between.pairs == (("one", "one"), ("two", "two"))


def test_an_equal_model_has_nothing_to_learn_and_others_get_a_gradient():
    teacher = Net().eval()
    same = copy.deepcopy(teacher)
    assert lesson(hints(), same, teacher).item() == 0
    model = Net(inner=3)
    lesson(hints(), model, teacher).backward()
    assert model.stem.weight.grad.abs().sum() > 0 and model.head.weight.grad is None
    assert all(p.grad is None for p in teacher.parameters())


def test_a_model_that_has_run_away_is_pulled_back_gently():
    """The pull stays bounded however far away it is; over the teacher's size alone it would grow with the distance."""
    teacher = Net().eval()
    steps = []
    for far in (1e1, 1e3):
        model = copy.deepcopy(teacher)
        with torch.no_grad():
            model.two[0].weight.mul_(far)
        loss = lesson(hints(weight=1.0), model, teacher)
        loss.backward()
        steps.append(float(model.two[0].weight.grad.norm()))
        assert loss.item() < 2
    assert steps[1] < steps[0]


def test_layers_can_be_named():
    model, teacher = Net(), Net()
    term = hints(layers=("stem", "two.0"))
    lesson(term, model, teacher)
    assert term._between.pairs == (("stem", "stem"), ("two.0", "two.0"))


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (("stemm",), "the model has no layer 'stemm'. Did you mean 'stem'"),
        (("stem",), r"stem returns \[2, 6, 8, 8\] in the teacher and stem \[2, 3, 8, 8\] in the model; name layers"),
    ],
)
def test_a_layer_that_does_not_fit_is_named(layers, words):
    with pytest.raises(TrainError, match=words):
        lesson(hints(layers=layers), Net(inner=3), Net())


def test_where_nothing_fits_it_says_so_and_adds_nothing(capsys):
    assert lesson(hints(), Net(3, 2), Net()).item() == 0
    assert "hints: no layer returns the shape" in capsys.readouterr().err


def test_a_teacher_that_has_just_run_is_not_run_again():
    model, teacher = Net(), Net()
    first, second = soft_targets(), hints()
    for term in (first, second):
        term.teach(teacher)
        term.attach(model)
    outputs = model(X)
    for term in (first, second):
        term(X, outputs, None)
    assert teacher.runs == 1
    alone = second(X.clone(), outputs, None)
    assert teacher.runs == 2 and torch.isfinite(alone)


def test_nothing_is_left_behind():
    model, teacher = Net(), Net().train()
    term = hints()
    assert isinstance(term, Taught)
    lesson(term, model, teacher)
    assert not teacher.training
    term.detach()
    assert teacher.training and term._between.pairs is None
    assert not any(m._forward_hooks or m._forward_pre_hooks for net in (model, teacher) for m in net.modules())


@pytest.mark.parametrize("weight", [-1.0, float("nan")])
def test_a_weight_that_cannot_be_is_refused(weight):
    with pytest.raises(TrainError, match="weight of 0 or more"):
        lesson(hints(weight=weight), Net(), Net())


def test_needs_a_teacher():
    with pytest.raises(TrainError, match="hints needs a teacher"):
        hints().attach(Net())


def test_channels_that_are_left_are_compared_with_the_same_channels_of_the_original():
    teacher, model = Net().eval(), Net(inner=4, stream=3)
    left = {"stem": np.array([True, False, True, True, True, False]), "one": np.array([True, False, True, True])}
    left |= dict.fromkeys(("one.0", "one.1", "two", "two.0", "two.1"), left["one"])
    term = hints(weight=1.0)
    term.relate(left)
    lesson(term, model, teacher)
    pairs = term._between.hear(X, term._teacher)
    assert [pair.own for pair, _, _ in pairs] == ["one", "two"]
    assert torch.equal(pairs[0].theirs, teacher.one(teacher.stem(X))[:, [0, 2, 3]])
    term.detach()
    assert lesson(term, model, teacher).item() == 0, "a teacher of another training has channels of its own"


def test_a_teacher_of_the_users_own_is_heard_whole():
    term = hints(teacher=Net())
    term.relate({"stem": np.array([True, True, False, False, False, False])})
    assert term._between.left == {}
