import copy

import pytest
import torch

from penjing.core.errors import TrainError
from penjing.terms.fitnets import fitnets
from penjing.training.loop import Options, fit
from training.toys import Plain as Toy
from training.toys import built, toy

from .nets import Other, Plain, attached, batch


def test_a_copy_of_the_teacher_has_nothing_to_learn():
    teacher, x = Plain().eval(), batch()
    model = copy.deepcopy(teacher)
    term, extras = attached(fitnets(layers=("one", "two")), model, teacher)
    assert len(extras) == 4 and term(x, model(x), None).item() == pytest.approx(0, abs=1e-9)


def test_regressors_go_from_the_models_channels_to_the_teachers():
    model, teacher = Plain(), Other(first=2)
    _, extras = attached(fitnets(layers={"one": "features.1", "two": "features.4"}), model, teacher)
    assert [tuple(p.shape) for p in extras] == [(6, 4, 1, 1), (6,), (6, 8, 1, 1), (6,)]


def test_the_distance_is_that_of_the_regressed_map_and_both_learn():
    model, teacher, x = Plain().eval(), Other(), batch()
    term, (weight, bias) = attached(fitnets(weight=3.0, layers=("two=features.4",)), model, teacher)
    loss = term(x, model(x), None)
    s, t = model.two(model.one(x)), teacher.features[:5](x)
    r = torch.einsum("oi,nihw->nohw", weight[:, :, 0, 0], s) + bias[:, None, None]
    assert loss.item() == pytest.approx(
        (3 * (r - t).square().sum() / (r.square().sum() + t.square().sum())).item(), rel=1e-5
    )
    loss.backward()
    for parameter in (weight, bias, model.one[0].weight):
        assert parameter.grad.abs().sum() > 0
    assert all(p.grad is None for p in teacher.parameters())


def test_by_default_the_middle_of_the_stages_learns():
    term, _ = attached(fitnets(), Plain(), Other())
    assert term._between.pairs == (("two", "features.4"),)


def test_looking_changes_nothing_in_the_networks():
    model, teacher = Plain().train(), Other().train()
    model.one.eval()
    before = copy.deepcopy(model.state_dict())
    term, _ = attached(fitnets(), model, teacher)
    assert (model.training, model.one[1].training, model.two.training) == (True, False, True)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    term.detach()
    assert not term._regressors and teacher.training


def test_without_samples_it_says_what_is_missing():
    term = fitnets(teacher=Other())
    with pytest.raises(TrainError, match=r"fitnets reads the shapes of layers from samples: call show"):
        term.attach(Plain())


def test_a_weight_that_cannot_be_is_refused():
    with pytest.raises(TrainError, match="fitnets needs a weight of 0 or more"):
        attached(fitnets(weight=float("inf")), Plain(), Other())


def test_in_a_training_the_regressors_learn_and_leave_the_model_as_it_was_made():
    model, teacher = built(Toy), built(Toy, seed=1)
    names, before = set(model.state_dict()), {}
    term = fitnets(layers=("conv2=conv1",))

    def look(row):
        before.setdefault(0, [p.detach().clone() for r in term._regressors for p in r.parameters()])
        before[1] = [p.detach().clone() for r in term._regressors for p in r.parameters()]

    fit(model, toy(labelled=False), None, Options(epochs=3, lr=0.05, batch=16), terms=[term], teacher=teacher,
        on_epoch=look)  # fmt: skip
    assert set(model.state_dict()) == names and not term._regressors
    assert all(not torch.equal(*pair) for pair in zip(before[0], before[1], strict=True))
