"""Learned steps: the paper's gradients, by hand and by automatic differentiation, and where steps begin."""

import pytest
import torch

from penjing.quantizers.base import straight_through
from penjing.quantizers.lsq import lsq, rounded

VECTOR = torch.tensor([[0.9, -0.1, 0.3, -0.7, 0.05, -0.45, 0.2, 0.6]])


def test_known_answers() -> None:
    v = torch.tensor([-1, -0.31, 0.12, 0.26, 0.9], requires_grad=True)
    step = torch.full((5,), 0.2, requires_grad=True)
    found = rounded(v, step, -4, 3, 1.0)
    torch.testing.assert_close(found.detach(), torch.tensor([-0.8, -0.4, 0.2, 0.2, 0.6]))
    found.sum().backward()
    assert v.grad is not None
    assert step.grad is not None
    assert v.grad.tolist() == [0, 1, 1, 1, 0]
    torch.testing.assert_close(step.grad, torch.tensor([-4, -0.45, 0.4, -0.3, 3]))


def test_gradients_are_those_of_differentiating_the_composition() -> None:
    chance = torch.Generator().manual_seed(0)
    x, far = (torch.randn(3, 5, 4, generator=chance) for _ in range(2))
    answers = []
    for by_hand in (True, False):
        v, step = x.clone().requires_grad_(), torch.tensor([[[0.3]], [[0.5]], [[0.1]]], requires_grad=True)
        if by_hand:
            found = rounded(v, step, -2, 1, 0.25)
        else:
            s = straight_through(step * 0.25, step)
            clipped = (v / s).clamp(-2, 1)
            found = straight_through(clipped, clipped.round()) * s
        (found * far).sum().backward()
        answers.append((found.detach(), v.grad, step.grad))
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other)


def test_steps_begin_by_the_formula_and_their_gradient_is_scaled() -> None:
    module = lsq(start="mean").weights((1, 8), 3)
    module.start(VECTOR)
    (step,) = module.parameters()
    assert float(step.detach()) == pytest.approx(0.476314, abs=1e-6)
    module(torch.full((1, 8), 100.0)).sum().backward()  # each of 8 numbers is clipped at 3 steps
    assert step.grad is not None
    assert float(step.grad) == pytest.approx(8 * 3 * 0.204124, abs=1e-4)


@torch.no_grad()
def test_the_default_start_has_the_least_error() -> None:
    for bits in (2, 3, 4):
        errors = []
        for start in ("mse", "mean", "max"):
            module = lsq(start=start).weights((1, 8), bits)  # type: ignore[arg-type]
            errors.append(float((module(module.start(VECTOR)) - VECTOR).square().sum()))
        assert errors[0] == min(errors)


def test_a_gradient_scale_counts_one_picture() -> None:
    grads = []
    for n in (1, 4):
        module = lsq().reads(3, 2)
        assert module is not None
        x = torch.full((n, 3, 2, 2), 100.0)
        module(x).mean().backward()
        (step,) = module.parameters()
        grads.append(step.grad)
    torch.testing.assert_close(*grads)


def test_activations_follow_the_weights_or_are_given() -> None:
    for given, bits in (("same", 3), (8, 8)):
        module = lsq(activations=given).reads(4, 3)  # type: ignore[arg-type]
        assert module is not None
        assert module.bits == bits
    assert lsq(activations=None).reads(4, 3) is None
