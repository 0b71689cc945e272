import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from penjing.core.errors import RecipeError, TrainError
from penjing.core.protocols import Taught
from penjing.core.registry import build
from penjing.terms.distill import soft_targets


class Always(nn.Module):
    """A teacher with one answer."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([logits]))

    def forward(self, x):
        return self.logits.expand(len(x), -1)


STUDENT, TEACHER = torch.tensor([[1.0, 2.0, 3.0]]), (2.0, 1.0, 5.0)


def loss(own, teacher, **options):
    term = soft_targets(**{"weight": 1.0, "teacher": teacher, **options})
    assert term.attach(nn.Identity()) == []
    value = term(torch.zeros(len(own), 1), own, None)
    term.detach()
    return value


@pytest.mark.parametrize(("temperature", "known"), [(4.0, 0.725382), (1.0, 0.243666), (100.0, 0.777999)])
def test_known_answers(temperature, known):
    assert loss(STUDENT, Always(*TEACHER), temperature=temperature).item() == pytest.approx(known, abs=2e-6)


def test_averages_over_the_batch_and_scales_with_the_weight():
    one = loss(STUDENT, Always(*TEACHER))
    assert loss(STUDENT.expand(5, -1), Always(*TEACHER), weight=0.9).item() == pytest.approx(0.9 * one.item())


def test_zero_when_equal():
    assert loss(torch.tensor([[2.0, 1.0, 5.0]]), Always(*TEACHER)).item() == pytest.approx(0, abs=1e-6)


def test_the_gradient_reaches_the_model_alone_and_is_the_difference_of_probabilities():
    own, teacher = STUDENT.clone().requires_grad_(), Always(*TEACHER)
    loss(own, teacher).backward()
    given = torch.tensor([TEACHER])
    torch.testing.assert_close(own.grad, 4 * (F.softmax(STUDENT / 4, 1) - F.softmax(given / 4, 1)))
    assert teacher.logits.grad is None


def test_half_precision_outputs_are_computed_in_float32():
    own = STUDENT.bfloat16()
    assert loss(own, Always(*TEACHER)).item() == pytest.approx(0.725382, abs=2e-6)


def test_takes_the_first_tensor_of_both():
    class Pair(Always):
        def forward(self, x):
            return {"logits": super().forward(x), "other": x}

    term = soft_targets(teacher=Pair(*TEACHER), weight=1.0)
    term.attach(nn.Identity())
    assert term(torch.zeros(1, 1), (STUDENT, None), None).item() == pytest.approx(0.725382, abs=2e-6)


def test_the_teacher_is_in_evaluation_mode_while_attached():
    teacher = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5)).train()
    teacher[1].eval()
    statistics = copy.deepcopy(teacher.state_dict())
    term = soft_targets(teacher=teacher)
    term.attach(nn.Identity())
    x = torch.randn(4, 3)
    first, second = term(x, x, None), term(x, x, None)
    assert torch.equal(first, second)
    term.attach(nn.Identity())  # a second attach must not take evaluation mode for the teacher's own
    term.detach()
    assert (teacher.training, teacher[0].training, teacher[1].training) == (True, True, False)
    assert all(torch.equal(statistics[name], tensor) for name, tensor in teacher.state_dict().items())


def test_a_teacher_can_be_lent_and_is_forgotten():
    term = soft_targets(weight=1.0)
    assert isinstance(term, Taught)
    term.teach(Always(*TEACHER))
    term.attach(nn.Identity())
    assert term(torch.zeros(1, 1), STUDENT, None).item() == pytest.approx(0.725382, abs=2e-6)
    term.detach()
    with pytest.raises(TrainError, match="needs a teacher"):
        term.attach(nn.Identity())


def test_the_option_goes_before_a_lent_teacher():
    term = soft_targets(teacher=Always(*TEACHER), weight=1.0)
    term.teach(Always(0.0, 0.0, 0.0))
    term.attach(nn.Identity())
    assert term(torch.zeros(1, 1), STUDENT, None).item() == pytest.approx(0.725382, abs=2e-6)


def test_options_are_values():
    assert build("term", {"soft_targets": {"temperature": 3, "weight": 0.5}}) == soft_targets(3.0, 0.5)
    assert soft_targets(weight=0.25).task_weight == 0.75
    with pytest.raises(RecipeError, match="temperatur"):
        build("term", {"soft_targets": {"temperatur": 3}})
    with pytest.raises(RecipeError, match="_lent"):
        build("term", {"soft_targets": {"_lent": []}})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "needs a teacher"),
        ({"teacher": "resnet"}, "not str"),
        ({"teacher": Always(0.0), "temperature": 0.0}, "temperature above 0"),
        ({"teacher": Always(0.0), "weight": 1.5}, "weight from 0 to 1"),
    ],
)
def test_attach_says_what_is_wrong(options, words):
    with pytest.raises(TrainError, match=words):
        soft_targets(**options).attach(nn.Identity())


def test_a_model_cannot_teach_itself():
    model = Always(1.0)
    with pytest.raises(TrainError, match="being trained"):
        soft_targets(teacher=model).attach(model)


def test_other_classes_are_refused():
    with pytest.raises(TrainError, match=r"\[1, 2\].*\[1, 3\]"):
        loss(STUDENT, Always(1.0, 2.0))


class Travelling(Always):
    """A teacher that notes where it is sent; the meta device stands for an accelerator."""

    def __init__(self, *logits):
        super().__init__(*logits)
        self.sent = []

    def to(self, device):
        self.sent.append(str(device))
        self.logits = nn.Parameter(torch.ones_like(self.logits, device=device))
        return self


def test_the_teacher_returns_to_its_device():
    teacher = Travelling(*TEACHER)
    term = soft_targets(teacher=teacher, weight=1.0)
    term.attach(nn.Identity())
    x, own = torch.zeros(1, 1, device="meta"), torch.zeros(1, 3, device="meta")
    term(x, own, None), term(x, own, None)
    assert teacher.sent == ["meta"]
    term.detach()
    assert teacher.sent == ["meta", "cpu"]
    term.detach()
    assert teacher.sent == ["meta", "cpu"]


def test_a_lent_teacher_returns_too_and_one_that_stayed_is_left_alone():
    teacher = Travelling(*TEACHER)
    term = soft_targets(weight=1.0)
    term.teach(teacher)
    term.attach(nn.Identity())
    term(torch.zeros(1, 1), STUDENT, None)
    term.detach()
    assert teacher.sent == []
    term.teach(teacher)
    term.attach(nn.Identity())
    term(torch.zeros(1, 1, device="meta"), torch.zeros(1, 3, device="meta"), None)
    term.detach()
    assert teacher.sent == ["meta", "cpu"]
