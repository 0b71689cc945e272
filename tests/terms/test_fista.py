"""FISTA against the closed form, its rate, its zeros, and going on from a checkpoint."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from penjing.terms.fista import Fista
from penjing.training.checkpoint import optimizer_state, restore_optimizer

T = torch.tensor([2.0, 0.5, -1.0])


def descended(optimizer: Fista, m: nn.Parameter, steps: int, target: Tensor, curvature: Tensor | float = 1.0) -> Tensor:
    for _ in range(steps):
        m.grad = curvature * (m.detach() - target)
        optimizer.step()
        optimizer.zero_grad()
    return optimizer.point(m)


def test_the_shrunk_target_is_reached_with_exact_zeros() -> None:
    m = nn.Parameter(torch.ones(3))
    found = descended(Fista([m], lr=0.3, penalty=1.0), m, 200, T)
    assert found.tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-5)
    assert found[1:].tolist() == [0.0, 0.0]


def test_the_gap_falls_with_the_square_of_the_steps() -> None:
    """On curvatures from 1e-4 to 1, where plain steps are slow: gap ≤ 2 ‖m - m*‖² / (η (k + 1)²)."""
    curvature = torch.logspace(-4, 0, 20, dtype=torch.float64)
    target = torch.full((20,), 5.0, dtype=torch.float64)
    best = (target - 1e-5 / curvature).clamp_min(0)

    def objective(x: Tensor) -> float:
        return float(0.5 * (curvature * (x - target).square()).sum() + 1e-5 * x.abs().sum())

    plain = torch.ones(20, dtype=torch.float64)
    for k in (20, 80, 320):
        m = nn.Parameter(torch.ones(20, dtype=torch.float64))
        found = descended(Fista([m], lr=1.0, penalty=1e-5), m, k, target, curvature)
        gap = objective(found) - objective(best)
        assert gap <= 2 * float((best - 1).square().sum()) / (k + 1) ** 2
        plain = torch.ones(20, dtype=torch.float64)
        for _ in range(k):
            plain = (plain - curvature * (plain - target) - 1e-5).clamp_min(0)
        assert gap < 0.5 * (objective(plain) - objective(best))


def test_a_step_takes_the_mean_of_the_gradients_since_the_last() -> None:
    m = nn.Parameter(torch.ones(1))
    optimizer = Fista([m], lr=0.1, penalty=0.0, every=2)
    for gradient in (1.0, 3.0):
        assert float(optimizer.point(m)) == 1.0
        m.grad = torch.tensor([gradient])
        optimizer.step()
    assert float(optimizer.point(m)) == pytest.approx(1 - 0.1 * 2.0)


def test_momentum_starts_anew_where_the_rate_falls() -> None:
    m = nn.Parameter(torch.full((1,), 100.0))
    optimizer = Fista([m], lr=0.1, penalty=0.0, drop=3)
    moved = []
    for _ in range(5):
        before = float(optimizer.point(m))
        m.grad = torch.ones(1)
        optimizer.step()
        moved.append(before - float(optimizer.point(m)))
    assert moved[0] == pytest.approx(0.1, rel=1e-3) and moved[2] > moved[1] > 0.1 - 1e-4
    # What was extrapolated before the fall is still in y at the fourth step; momentum is not, at the fifth.
    assert moved[4] == pytest.approx(0.01, rel=1e-2)


def test_it_goes_on_to_the_bit() -> None:
    whole, first = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    expected = descended(Fista([whole], lr=0.1, penalty=0.1, every=2, drop=8), whole, 17, T)
    half = Fista([first], lr=0.1, penalty=0.1, every=2, drop=8)
    descended(half, first, 9, T)
    second = nn.Parameter(first.detach().clone())
    again = Fista([second], lr=0.1, penalty=0.1, every=2, drop=8)
    restore_optimizer(again, {key: [x.clone() for x in xs] for key, xs in optimizer_state(half).items()})
    assert torch.equal(descended(again, second, 8, T), expected)


def test_the_penalty_pulls_the_mean_down_to_where_it_may_and_no_further() -> None:
    m, other = nn.Parameter(torch.tensor([1.0, 0.2])), nn.Parameter(torch.tensor([0.6]))
    optimizer = Fista([m, other], lr=1.0, penalty=10.0, least=lambda count: 0.3 if count > 1 else 0.5)
    for least, expected in ((0.5, [0.9, 0.1, 0.5]), (0.3, None)):
        optimizer.step()
        found = torch.cat([optimizer.point(m), optimizer.point(other)])
        assert float(found.mean()) == pytest.approx(least)
        if expected:
            assert found.tolist() == pytest.approx(expected)
    weak = Fista([nn.Parameter(torch.ones(2))], lr=1.0, penalty=0.1, least=lambda _: 0.3)
    weak.step()
    assert weak.point(weak.param_groups[0]["params"][0]).tolist() == pytest.approx([0.9, 0.9])
