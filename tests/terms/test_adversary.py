"""The critic and the network learn apart; without the critic there is distillation alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from penjing.terms.adversary import Adversary
from penjing.terms.outputs import outputs
from tiny import tiny

X = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def attached(model: nn.Module, teacher: nn.Module, weight: float = 1.0) -> tuple[Adversary, list[nn.Parameter]]:
    term = Adversary(3, 1.0, weight, 0.01)
    term.teach(teacher)
    return term, term.attach(model)


def test_a_copy_of_the_teacher_is_at_distance_zero() -> None:
    model = tiny().eval()
    term, _ = attached(model, copy.deepcopy(model), weight=0.0)
    assert float(term(X, model(X), None).detach()) == 0.0
    term.detach()


def test_without_the_critic_it_is_the_term_outputs() -> None:
    model, teacher = tiny(), tiny()
    with torch.no_grad():
        model.linear.weight.mul_(2)
    term, _ = attached(model, teacher, weight=0.0)
    other = outputs()
    other.teach(teacher)
    other.attach(model)
    given = model(X)
    assert float(term(X, given, None).detach()) == pytest.approx(float(other(X, given, None).detach()), rel=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_the_critic_learns_by_its_own_loss_whatever_passing_weighs(weight: float) -> None:
    model = tiny()
    term, critic = attached(model, tiny(), weight)
    given = model(X)
    term(X, given, None).backward()
    if weight == 0:
        assert all(p.grad is None for p in critic)
        return
    real, fake = term._critic(term._teacher(X)), term._critic(given.detach())
    alone = nn.functional.softplus(-real).mean() + (nn.functional.softplus(fake) + nn.functional.softplus(-fake)).mean()
    for p, expected in zip(critic, torch.autograd.grad(alone, critic), strict=True):
        assert p.grad is not None and torch.allclose(p.grad, expected, atol=1e-7)


def test_the_network_learns_to_pass() -> None:
    model, teacher = tiny(), tiny()
    term, _ = attached(model, teacher, weight=1.0)
    given = model(X).detach().requires_grad_()
    term(X, given, None).backward()
    free = given.detach().clone().requires_grad_()
    passing = nn.functional.softplus(-term._critic(free)).mean()
    theirs = term._teacher(X)
    (passing + (free - theirs).square().sum() / theirs.square().sum()).backward()
    assert given.grad is not None and free.grad is not None
    assert torch.allclose(given.grad, free.grad, atol=1e-6)


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_a_reversed_gradient_is_the_critics_own_turned_round(weight: float) -> None:
    model, teacher = tiny(), tiny()
    plain, _ = attached(model, teacher)
    term = Adversary(3, 1.0, weight, 0.01, reversal=True)
    term.teach(teacher)
    critic = term.attach(model)
    term._critic.load_state_dict(plain._critic.state_dict())
    given = model(X).detach().requires_grad_()
    term(X, given, None).backward()
    free, theirs = given.detach().clone().requires_grad_(), term._teacher(X)
    wrong = nn.functional.softplus(term._critic(free)).mean()  # the critic's loss where it takes it for the original
    ((free - theirs).square().sum() / theirs.square().sum() - weight * wrong).backward(inputs=[free])
    assert given.grad is not None and free.grad is not None and float(free.grad.abs().max()) > 0
    assert torch.allclose(given.grad, free.grad, atol=1e-7)
    plain(X, given.detach(), None).backward()  # the critic learns the same either way
    for p, other in zip(critic, plain._critic.parameters(), strict=True):
        assert p.grad is not None and other.grad is not None and torch.allclose(p.grad, other.grad, atol=1e-7)


def test_the_critic_says_any_number() -> None:
    model = tiny()
    term, _ = attached(model, tiny())
    said = term._critic(1e4 * torch.randn(64, 3))
    assert float(said.detach().abs().max()) > 1
    assert [m.out_features for m in term._critic.modules() if isinstance(m, nn.Linear)] == [128, 256, 128, 1]


def test_every_position_of_a_map_is_a_sample() -> None:
    class Map(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x)

    model, teacher = Map(), Map()
    term, _ = attached(model, teacher)
    loss = term(X, model(X), None)
    assert loss.shape == () and bool(torch.isfinite(loss))
