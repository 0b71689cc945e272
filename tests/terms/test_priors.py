"""Priors of recursive Bayesian pruning, against closed forms and sampling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from penjing.terms.priors import PRIORS, Annealing, Ard, DiracFixed, LogUniform, Prior


def best_gate(prior: Prior, beta: float) -> tuple[float, float]:
    """Minimise ½((μ - 1)² + σ²) + β KL over both, as a gate of curvature one does."""

    def value(x: Any) -> float:
        mu, logvar = torch.from_numpy(x)
        return float(0.5 * ((mu - 1).square() + logvar.exp()) + beta * prior.kl(mu, logvar))

    start, options = np.array([1.0, -3.0]), {"xatol": 1e-8, "fatol": 1e-14, "maxiter": 10_000}
    mu, logvar = scipy.optimize.minimize(value, start, method="Nelder-Mead", options=options).x
    return float(mu), math.exp(logvar)


@pytest.mark.parametrize("beta", [0.3, 0.8])
def test_the_optimum_of_a_gate_is_the_closed_form(beta: float) -> None:
    mu, variance = best_gate(Ard(), beta)
    assert mu == pytest.approx(1 - beta, abs=0.01)
    assert variance == pytest.approx(beta * (1 - beta), abs=0.01)


def test_a_gate_that_costs_more_than_it_is_worth_closes() -> None:
    assert abs(best_gate(Ard(), 1.1)[0]) < 0.02


@pytest.mark.parametrize(("beta", "expected"), [(0.1875, 0.75), (0.24, 0.6), (0.26, 0.0)])
def test_with_a_fixed_narrow_noise_a_gate_stays_up_to_a_quarter(beta: float, expected: float) -> None:
    mu = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    value = 0.5 * (mu - 1).square() + beta * DiracFixed().kl(mu, torch.tensor(2 * math.log(1e-4)))
    # Go downhill from one, as training does.
    rises = (value[:-1] > value[1:]).flip(0)
    steps = int(rises.int().argmax()) if bool(rises.any()) else len(mu) - 1
    assert float(mu[len(mu) - 1 - steps]) == pytest.approx(expected, abs=5e-3)


def test_the_divergence_is_that_of_two_gaussians() -> None:
    torch.manual_seed(0)
    mu, sigma = 0.7, 0.4
    x = mu + sigma * torch.randn(2_000_000, dtype=torch.float64)
    prior = torch.distributions.Normal(0.0, math.sqrt(mu**2 + sigma**2))
    sampled = (torch.distributions.Normal(mu, sigma).log_prob(x) - prior.log_prob(x)).mean()
    told = Ard().kl(torch.tensor(mu), torch.tensor(2 * math.log(sigma)))
    assert float(told) == pytest.approx(float(sampled), abs=1e-2)


@pytest.mark.parametrize("name", PRIORS)
def test_pure_noise_costs_nothing_and_nothing_overflows(name: str) -> None:
    prior = PRIORS[name]()
    mu = torch.tensor([0.0, 1.0, 1.0, 1e-20], requires_grad=True)
    logvar = torch.tensor([0.0, 40.0, -40.0, -80.0])
    kl: Tensor = prior.kl(mu, logvar)
    assert bool((kl >= 0).all()) and bool(torch.isfinite(kl).all())
    assert bool((kl[:2] < 1e-3).all())
    kl.sum().backward()
    assert mu.grad is not None and bool(torch.isfinite(mu.grad).all())


def test_the_log_uniform_divergence_is_molchanovs() -> None:
    at_one = 0.63576 * (1 - 1 / (1 + math.exp(-1.8732))) + 0.5 * math.log(2)
    assert float(LogUniform().kl(torch.tensor(1.0), torch.tensor(0.0))) == pytest.approx(at_one, rel=1e-5)


def test_the_annealed_noise_falls_by_a_constant_factor() -> None:
    prior = DiracFixed()
    assert [prior.deviation(p) for p in (0, 0.5, 1)] == pytest.approx([1e-1, 1e-2, 1e-3])
    assert isinstance(prior, Annealing) and not isinstance(Ard(), Annealing)
