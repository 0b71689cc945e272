import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from penjing.core.errors import TrainError
from penjing.core.registry import build
from penjing.terms.distill import soft_targets
from penjing.terms.dkd import decoupled, dkd

STUDENT, TEACHER = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[2.0, 1.0, 5.0]])


class Always(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, x):
        return self.logits


def loss(own, theirs, y, **options):
    term = dkd(teacher=Always(theirs), **options)
    term.attach(nn.Identity())
    return term(torch.zeros(len(own), 1), own, y)


@pytest.mark.parametrize(("alpha", "beta", "known"), [(1.0, 0.0, 0.498266), (0.0, 1.0, 0.497412)])
def test_known_answers(alpha, beta, known):
    assert loss(STUDENT, TEACHER, torch.tensor([2]), alpha=alpha, beta=beta).item() == pytest.approx(known, abs=2e-6)


def test_the_parts_make_up_the_whole():
    share = 1 - torch.softmax(TEACHER / 4, 1)[0, 2].item()
    whole = loss(STUDENT, TEACHER, torch.tensor([2]), beta=share)
    assert whole.item() == pytest.approx(0.725382, abs=2e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), classes=st.integers(2, 6), scale=st.floats(0.1, 30))
def test_both_parts_are_no_less_than_zero_and_make_up_the_divergence(seed, classes, scale):
    rng = torch.Generator().manual_seed(seed)
    own, theirs = (scale * torch.randn(1, classes, generator=rng, dtype=torch.float64) for _ in range(2))
    y = torch.randint(classes, (1,), generator=rng)
    one, two = decoupled(own, theirs, y)
    p = theirs.softmax(1)
    whole = (p * (p.log() - own.log_softmax(1))).sum()
    assert one >= -1e-9 and two >= -1e-9
    assert (one + (1 - p[0, y[0]]) * two).item() == pytest.approx(whole.item(), rel=1e-6, abs=1e-9)


def test_a_teacher_as_sure_as_can_be_gives_finite_gradients():
    own = STUDENT.clone().requires_grad_()
    value = loss(own, torch.tensor([[0.0, 0.0, 1e4]]), torch.tensor([2]), temperature=1.0)
    value.backward()
    assert math.isfinite(value.item()) and torch.isfinite(own.grad).all() and own.grad.any()


def test_without_a_label_the_teachers_first_choice_is_the_target():
    own, theirs = STUDENT.expand(2, 3), TEACHER.expand(2, 3)
    labelled = loss(own, theirs, torch.tensor([2, 2]))
    assert torch.equal(loss(own, theirs, None), labelled)
    assert torch.equal(loss(own, theirs, torch.tensor([2, -100])), labelled)
    assert not torch.equal(loss(own, theirs, torch.tensor([0, 2])), labelled)


def test_every_place_of_a_mask_is_a_sample():
    own, theirs = (t.view(1, 3, 1, 1).expand(2, 3, 2, 2) for t in (STUDENT, TEACHER))
    y = torch.full((2, 2, 2), 2)
    assert loss(own, theirs, y).item() == pytest.approx(loss(STUDENT, TEACHER, torch.tensor([2])).item())


def test_it_grows_over_its_share_of_the_training():
    term = dkd(teacher=Always(TEACHER), warmup=0.5)
    term.time(8)
    term.attach(nn.Identity())
    told = []
    for _ in range(8):
        told.append(term(torch.zeros(1, 1), STUDENT, None).item())
        term.after_step()
    full = loss(STUDENT, TEACHER, None).item()
    assert told == pytest.approx([full * share for share in (0.25, 0.5, 0.75, 1, 1, 1, 1, 1)])


def test_it_goes_beside_the_whole_task():
    assert getattr(build("term", "dkd"), "task_weight", 1.0) == 1.0
    assert soft_targets().task_weight < 1


@pytest.mark.parametrize("options", [{"alpha": -1.0}, {"beta": math.nan}, {"temperature": 0.0}, {"warmup": 1.5}])
def test_options_that_cannot_be_are_refused(options):
    with pytest.raises(TrainError, match="dkd needs alpha and beta of 0 or more"):
        loss(STUDENT, TEACHER, None, **options)


def test_other_classes_and_a_single_one_are_refused():
    with pytest.raises(TrainError, match=r"dkd: the teacher returns \[1, 2\] and the model \[1, 3\]"):
        loss(STUDENT, TEACHER[:, :2], None)
    with pytest.raises(TrainError, match=r"dkd tells the target class from the others; the model returns 1 class"):
        loss(STUDENT[:, :1], TEACHER[:, :1], None)
