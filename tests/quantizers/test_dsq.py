"""Soft staircases: the known answers, continuity, the hard limit, and gradients of ends and softness."""

import pytest
import torch

from penjing.quantizers.dsq import Staircase, dsq, soft

X = torch.tensor([-1.2, -1, -0.9, -0.4, 0.1, 0.6, 1])


def stairs(x: torch.Tensor, alpha: float, low: float = -1.0, high: float = 1.0, cells: int = 3) -> torch.Tensor:
    return soft(x, *(torch.tensor(one, dtype=x.dtype) for one in (low, high, alpha)), cells)


def test_known_answers() -> None:
    expected = torch.tensor([-1, -1, -0.935985, -0.372557, 0.132561, 0.576561, 1])
    torch.testing.assert_close(stairs(X, 0.2), expected, atol=1e-6, rtol=0)
    assert float(stairs(torch.tensor([0.1]), 0.05)) == pytest.approx(0.175499, abs=1e-6)
    hard = Staircase(2, 0.2)(X, len(X))
    torch.testing.assert_close(hard.detach(), torch.tensor([-1, -1, -1, -1 / 3, 1 / 3, 1 / 3, 1]))


def test_the_soft_staircase_is_continuous_and_tends_to_the_hard_one() -> None:
    for border in (-1.0, -1 / 3, 1 / 3, 1.0):
        below, above = stairs(torch.tensor([border - 1e-7, border + 1e-7], dtype=torch.float64), 0.2)
        assert float(above - below) == pytest.approx(0, abs=1e-6)
    x = torch.linspace(-1.5, 1.5, 100, dtype=torch.float64)
    hard = Staircase(2, 0.2).double()(x, 100).detach()
    gaps = [float((stairs(x, alpha) - hard).abs().mean()) for alpha in (0.5, 0.1, 1e-3, 1e-12)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 0.02


def test_the_gradient_is_that_of_the_soft_staircase() -> None:
    module = Staircase(2, 0.2)
    x = X.clone().requires_grad_()
    module(x, 1).sum().backward()
    width, steep = 2 / 3, torch.log(torch.tensor(9.0)) / (2 / 3)
    centre = torch.tensor([0, 0, -2 / 3, -2 / 3, 0, 2 / 3, 2 / 3])
    slope = width / 2 * steep / 0.8 * (1 - torch.tanh(steep * (X - centre)) ** 2)
    assert x.grad is not None
    torch.testing.assert_close(x.grad[2:6], slope[2:6])
    assert float(x.grad[0]) == 0


def test_clipped_numbers_reach_the_ends_and_softness_is_learned() -> None:
    module = Staircase(2, 0.2)
    scale = (10 * 3) ** -0.5
    low, high, alpha = torch.autograd.grad(module(torch.tensor([-5.0]), 10).sum(), list(module.parameters()))
    torch.testing.assert_close(torch.stack([low, high, alpha]), torch.tensor([scale, 0, 0]))
    given = (torch.tensor([0.2, -0.5], dtype=torch.float64), torch.tensor(-1.0).double(), torch.tensor(1.1).double())
    free = [one.clone().requires_grad_() for one in (*given, torch.tensor(0.3).double())]
    assert torch.autograd.gradcheck(lambda *all: soft(*all, 3), free)


def test_what_is_learned_stays_within_its_range() -> None:
    module = dsq().weights((1, 7), 2)
    latent = torch.nn.Parameter(module.start(X[None]))
    with torch.no_grad():
        for one, value in zip(module.parameters(), (2.0, 1.0, 0.9), strict=True):
            one.fill_(value)
    module.after_step(latent, 0.0)
    low, high, alpha = (float(one.detach()) for one in module.parameters())
    assert high > low
    assert alpha == 0.5
    assert bool(module(latent).isfinite().all())


def test_zero_stays_a_level_of_what_was_never_negative() -> None:
    module = dsq().reads(1, 2)
    assert module is not None
    module.start(X[None].relu())
    (low, *_) = module.parameters()
    with torch.no_grad():
        low.fill_(0.3)
    module.after_step(0.0)
    assert float(module(torch.zeros(1, 1)).detach()) == 0
