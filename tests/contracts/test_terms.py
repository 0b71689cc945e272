"""What holds for every term there is, and so for every one that is added."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core.protocols import Shown, Taught, Term, Timed
from penjing.core.registry import build, entries
from penjing.graph.graph import Graph

TERMS = sorted(entries("term"))


class Lesson:
    """A network with a term attached, its teacher a copy with other weights, and one batch."""

    def __init__(self, name: str, model: nn.Module) -> None:
        self.model, self.teacher = copy.deepcopy(model), copy.deepcopy(model)
        rng = torch.Generator().manual_seed(2)
        self.x, self.y = torch.randn(6, 3, 8, 8, generator=rng), torch.randint(5, (6,), generator=rng)
        with torch.no_grad():
            for p in self.teacher.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=rng))
        self.before = {key: value.clone() for key, value in self.model.state_dict().items()}
        self.forward = self.model.eval()(self.x)
        self.teacher.train().block.eval()
        self.modes = [module.training for module in self.teacher.modules()]
        self.term: Term = build("term", name)
        self.attach()

    def attach(self) -> None:
        if isinstance(self.term, Taught):
            self.term.teach(self.teacher)
        if isinstance(self.term, Shown):
            self.term.show(self.x[:2])
        if isinstance(self.term, Timed):
            self.term.time(10)
        self.extras = self.term.attach(self.model)

    def loss(self, y: Tensor | None) -> Tensor:
        return self.term(self.x, self.model(self.x), y)


@pytest.fixture(params=TERMS)
def lesson(request: pytest.FixtureRequest, traced: tuple[nn.Module, Graph]) -> Lesson:
    return Lesson(request.param, traced[0])


@pytest.mark.parametrize("labels", [True, False])
def test_it_is_a_finite_scalar_with_and_without_labels(lesson: Lesson, labels: bool) -> None:
    value = lesson.loss(lesson.y if labels else None)
    assert value.shape == () and value.is_floating_point() and bool(torch.isfinite(value))


def test_it_goes_into_the_loss_with_finite_gradients(lesson: Lesson) -> None:
    share = getattr(lesson.term, "task_weight", 1.0)
    assert 0 <= share <= 1
    outputs = lesson.model(lesson.x)
    (share * F.cross_entropy(outputs, lesson.y) + lesson.term(lesson.x, outputs, lesson.y)).backward()
    for parameter in (p for p in (*lesson.model.parameters(), *lesson.extras) if p.requires_grad):
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all())
    assert all(parameter.grad is None for parameter in lesson.teacher.parameters())


def test_what_asks_for_gradients_moves_the_network(lesson: Lesson) -> None:
    value = lesson.loss(lesson.y)
    if not value.requires_grad:  # a term that acts after the step alone
        assert float(value) == 0
        return
    value.backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in lesson.model.parameters())


def test_it_stays_in_float32_under_autocast(lesson: Lesson) -> None:
    full = lesson.loss(lesson.y)
    with torch.autocast("cpu", torch.bfloat16):
        half = lesson.loss(lesson.y)
    assert half.dtype == torch.float32 and torch.allclose(half, full, rtol=0.2, atol=0.02)
    if half.requires_grad:
        half.backward()
        assert all(bool(torch.isfinite(p.grad).all()) for p in lesson.model.parameters() if p.grad is not None)
    assert all(p.grad is None for p in lesson.teacher.parameters())


def test_it_does_not_grow_with_the_batch(lesson: Lesson) -> None:
    once = lesson.loss(lesson.y)
    lesson.x, lesson.y = lesson.x.repeat(4, 1, 1, 1), lesson.y.repeat(4)
    assert torch.allclose(lesson.loss(lesson.y), once, rtol=1e-4, atol=1e-6)


def test_detaching_restores_the_forward_to_the_bit(lesson: Lesson) -> None:
    taught = {key: value.clone() for key, value in lesson.teacher.state_dict().items()}
    lesson.loss(lesson.y)
    lesson.term.detach()
    assert torch.equal(lesson.model.eval()(lesson.x), lesson.forward)
    assert set(lesson.model.state_dict()) == set(lesson.before)
    assert all(torch.equal(value, lesson.before[key]) for key, value in lesson.model.state_dict().items())
    for network in (lesson.model, lesson.teacher):
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert all(torch.equal(value, taught[key]) for key, value in lesson.teacher.state_dict().items())
    assert lesson.modes == [module.training for module in lesson.teacher.modules()]


def test_a_term_serves_a_second_training(lesson: Lesson) -> None:
    first = lesson.loss(lesson.y)
    lesson.term.after_step()
    lesson.term.detach()
    lesson.attach()
    assert torch.equal(lesson.loss(lesson.y), first)


@pytest.mark.parametrize("name", TERMS)
def test_a_term_says_what_it_does(name: str) -> None:
    assert entries("term")[name].__doc__.splitlines()[0].endswith(".")
