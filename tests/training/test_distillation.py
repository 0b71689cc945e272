"""Trainings with the terms of distillation: together, without labels, in two processes, and taken up again."""

import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import penjing
from penjing.core.protocols import Shown
from penjing.core.registry import build
from penjing.steps.train import train
from penjing.terms.attention_transfer import attention_transfer
from penjing.terms.distill import soft_targets
from penjing.terms.fitnets import fitnets
from penjing.training.checkpoint import Checkpoint
from penjing.training.evaluate import evaluate
from penjing.training.loop import Options, fit

from .toys import Normed, Plain, built, equal, toy, weights

QUICK = Options(epochs=4, lr=0.05, batch=16, precision="32-true")
TERMS = ["soft_targets", "dist", "dkd", {"attention_transfer": {"weight": 30}}, "fitnets"]


class Counting(nn.Module):
    """A teacher of another make than the toys, which counts its runs."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.classifier = nn.Linear(12, 4)
        self.runs = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        return self.classifier(self.features(x).mean((2, 3)))


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    teacher = built(Counting, seed=1)
    fit(teacher, toy(200), None, replace(QUICK, epochs=3))
    assert evaluate(teacher, toy(100, seed=1)).accuracy > 90
    return teacher


@pytest.mark.parametrize("name", TERMS, ids=str)
def test_pictures_alone_teach(name, teacher):
    student, recipe = built(Normed, seed=2), replace(QUICK, epochs=6)
    split = toy(200, labelled=False)
    rows = fit(student, split, None, recipe, terms=[build("term", name)], teacher=teacher).rows
    if name not in ("soft_targets", "dist", "dkd"):  # which leave the last layer alone
        assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]
    else:
        assert evaluate(student, toy(100, seed=1)).accuracy > 90


def test_all_together_run_the_teacher_once_a_batch(teacher):
    student, before, runs = built(Normed, seed=2), weights(teacher), teacher.runs
    fit(student, toy(200), None, QUICK, terms=[build("term", name) for name in TERMS], teacher=teacher)
    # One run more for the shapes.
    assert teacher.runs - runs == QUICK.epochs * QUICK.steps(200) + 1
    assert equal(weights(teacher), before) and set(student.state_dict()) == set(built(Normed).state_dict())
    for network in (student, teacher):
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert evaluate(student, toy(100, seed=1)).accuracy > 90


def test_half_precision_trains_with_all(teacher):
    student, recipe = built(Normed, seed=2), replace(QUICK, epochs=2, precision="bf16-mixed")
    history = fit(student, toy(100), toy(50), recipe, terms=[build("term", name) for name in TERMS], teacher=teacher)
    assert history.rows[-1]["loss"] < history.rows[0]["loss"]


def test_two_processes_learn_what_one_learns(teacher):
    """Attention is averaged over samples, so that shares add up exactly; a regressor that adds nothing goes along."""
    learned = []
    for devices in (1, 2):
        student, recipe = built(Plain, seed=2), replace(QUICK, epochs=2, devices=devices)
        terms = [soft_targets(), attention_transfer(weight=10.0, decay=True), fitnets(weight=0.0)]
        fit(student, toy(64), None, recipe, terms=terms, teacher=teacher)
        learned.append(weights(student))
    for name, one in learned[0].items():
        torch.testing.assert_close(learned[1][name], one, rtol=1e-3, atol=1e-5)


def test_what_a_process_is_given_is_whole(teacher):
    """As a spawned process gets it: the model with its ears, the terms, and the parameters that are trained."""
    model, x = built(Plain), next(iter(toy(8).batches(8)))[0]
    terms = [build("term", name) for name in TERMS]
    extras = []
    for term in terms:
        term.teach(teacher)
        if isinstance(term, Shown):
            term.show(x[:2])
        extras += term.attach(model)
    other, copies, parameters = pickle.loads(pickle.dumps((model, terms, extras)))
    told = [[float(term(x, outputs, None).detach()) for term in each] for each, outputs in
            ((terms, model(x)), (copies, other(x)))]  # fmt: skip
    assert told[0] == told[1]
    assert copies[-1]._regressors[0].weight is parameters[-2]
    assert len({id(term._teacher._network) for term in copies}) == len({id(t._teacher._loan) for t in copies}) == 1
    for term in terms:
        term.detach()


def test_stopped_and_taken_up_again_it_ends_the_same(tmp_path, teacher):
    class Stopped(Exception):
        pass

    def stopping(done, total, text):
        if done >= 20:
            raise Stopped

    def learned(path, progress=None):
        student = built(Normed, seed=2)
        terms = [build("term", spec) for spec in ("fitnets", "dkd", {"attention_transfer": {"decay": True}})]
        fit(student, toy(200), None, replace(QUICK, mixup=0.5), terms=terms, teacher=teacher, progress=progress,
            checkpoint=Checkpoint(tmp_path / path, 4))  # fmt: skip
        return weights(student)

    whole = learned("whole")
    with pytest.raises(Stopped):
        learned("broken", stopping)
    assert equal(whole, learned("broken"))


@pytest.mark.parametrize("labelled", [True, False])
def test_a_recipe_combines_them_with_a_cut(labelled, teacher):
    split = toy(96)
    x, y = torch.from_numpy(split.x), torch.from_numpy(split.labels)
    data = (TensorDataset(x[:64], y[:64]), TensorDataset(x[64:], y[64:])) if labelled else x
    terms = ("dist", {"attention_transfer": {"weight": 10}}, {"fitnets": {"layers": ["features"], "weight": 1}})
    steps = [penjing.prune(criterion="l1"), train(epochs=8, batch=16, lr=0.02, terms=terms)]
    result = penjing.run(teacher, data, steps, "macs=0.6x")
    (told,) = result.results["trained"]
    assert [name.partition("(")[0] for name in told["terms"]] == ["dist", "attention_transfer", "fitnets"]
    assert not [remark for remark in result.results["remarks"] if "led away" in remark]
    with torch.no_grad():
        agreed = (result.model.eval()(x).argmax(1) == teacher.eval()(x).argmax(1)).float().mean()
    assert agreed > 0.9
