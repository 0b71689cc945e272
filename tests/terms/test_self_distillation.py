"""Exits taught by the network's own end: the losses, who learns from whom, and that nothing stays."""

import pickle
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from penjing.core import console
from penjing.core.errors import PlanError, TrainError
from penjing.data import load
from penjing.exporting.modes import evaluating
from penjing.terms.distill import soft_targets
from penjing.terms.self_distillation import learning_rate, self_distillation
from penjing.training.checkpoint import Checkpoint
from penjing.training.loop import Options, fit
from staged import staged
from tiny import pictures, tiny

X = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2])
QUICK = Options(epochs=2, lr=0.05, batch=16, precision="32-true")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load(pictures(tmp_path_factory.mktemp("data")), seed=0)


def attached(term, model):
    term.show(X[:2])
    return term.attach(model)


def test_the_loss_is_that_of_the_paper():
    model, term = staged(), self_distillation(skip=(1,), alpha=0.3, features=0.03, temperature=3.0)
    attached(term, model)
    logits = model(X)
    found = term(X, logits, Y)
    first = model.layer1(X)
    second = model.layer2(first.clone().relu())
    deepest = model.layer3(second).mean((2, 3)).detach()
    expected = torch.zeros(())
    for i, (exit, map) in enumerate(zip(term.exits, (first, second), strict=True)):
        features = exit.features(map)
        z = exit.head(features)
        soft = -((logits.detach() / 3).softmax(1) * (z / 3).log_softmax(1)).sum(1).mean()
        expected = expected + 0.7 * F.cross_entropy(z, Y) + 0.3 * soft
        if i == 1:  # a batch of 128 of the same pictures
            expected = expected + 0.03 * ((term._own.adapters[1](features) - deepest).square().sum() * 128 / 6).sqrt()
    torch.testing.assert_close(found, expected)


def test_what_teaches_gets_no_gradient_and_the_stages_before_an_exit_do():
    model, term = staged(), self_distillation(layers=("layer1",), skip=())
    attached(term, model)
    term(X, model(X), Y).backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert moved and all(name.startswith("layer1") for name in moved)


def test_the_features_are_learned_by_the_exits_that_are_not_skipped():
    model = staged()
    for skip, which in (((1,), [1]), ((), [0, 1]), ((1, 2), [])):
        term = self_distillation(skip=skip)
        attached(term, model)
        assert list(term._own.adapters) == which


def test_nothing_stays_and_what_was_learned_stays_with_the_term(data):
    model, term = staged(), self_distillation()
    names = set(model.state_dict())
    fit(model, data.train, None, replace(QUICK, epochs=6), terms=[term, soft_targets(teacher=staged(1))])
    assert set(model.state_dict()) == names and not any(m._forward_hooks for m in model.modules())
    assert [one.branch.at for one in term.exits] == ["layer1", "layer2"]
    with evaluating(model), torch.no_grad():
        x, y = next(iter(data.train.batches(120)))
        assert torch.equal(model(x), pickle.loads(pickle.dumps(model))(x))
        exit = term.exits[1].eval()
        right = exit(model.layer2(model.layer1(x).relu())).argmax(1) == y
    assert float(right.float().mean()) > 0.5  # of three classes, by its own running statistics


def test_exits_come_back_whole_from_two_processes_and_from_a_checkpoint(data, tmp_path):
    def trained(**how):
        term = self_distillation()
        fit(staged(), data.train, None, replace(QUICK, **how.pop("recipe", {})), terms=[term], **how)
        return [one.state_dict() for one in term.exits]

    start = self_distillation()
    attached(start, staged())
    for exits in (trained(recipe={"devices": 2}), trained(checkpoint=Checkpoint(tmp_path / "a.training"))):
        for one, fresh in zip(exits, start.exits, strict=True):
            for name in ("blocks.0.2.running_mean", "head.weight"):
                assert not torch.equal(one[name], fresh.state_dict()[name])
    for one, again in zip(exits, trained(checkpoint=Checkpoint(tmp_path / "a.training")), strict=True):
        kept = {name: tensor for name, tensor in one.items() if "num_batches" not in name}
        assert all(torch.equal(tensor, again[name]) for name, tensor in kept.items())


def test_exits_learn_at_a_rate_of_their_own_that_falls_to_zero(data):
    slow, model = replace(QUICK, epochs=1, lr=1e-9, optimizer="sgd"), staged()
    before, terms = {name: p.clone() for name, p in model.named_parameters()}, []
    for lr in (0.05, 1e-9):
        terms.append(term := self_distillation(lr=lr))
        fit(model, data.train, None, slow, terms=[term])
    moved = [(a - b).abs().max() for a, b in zip(*(one.exits[0].parameters() for one in terms), strict=True)]
    assert min(moved) > 1e-3
    assert all(torch.allclose(p, before[name], atol=1e-6) for name, p in model.named_parameters())
    assert learning_rate(0.0, 0.05) == 0.05 and term._clock.steps == 0


def test_a_network_of_one_size_is_told_and_trains_on(monkeypatch):
    term, model = self_distillation(), tiny()
    heard = []
    monkeypatch.setattr(console, "remark", heard.append)
    assert not any(p.requires_grad for p in attached(term, model))
    assert "one size alone" in heard[0]
    assert float(term(X, model(X), Y)) == 0
    named = self_distillation(layers=("bn0",))
    assert attached(named, model)


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"alpha": 1.2}, TrainError, r"alpha must be a share from 0 to 1; got 1\.2"),
        ({"features": -1.0}, TrainError, r"features must be 0 or more"),
        ({"lr": 0.0}, TrainError, r"lr must be above 0"),
        ({"temperature": 0.0}, TrainError, r"temperature must be above 0"),
        ({"layers": ("layer4",)}, PlanError, r"no layer 'layer4' for an exit"),
    ],
)
def test_what_cannot_be_is_refused(options, kind, says):
    with pytest.raises(kind, match=says):
        attached(self_distillation(**options), staged())
