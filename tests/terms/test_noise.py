"""Noise on gates: drawn a sample and unit, off in evaluation, learned at its own rate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from penjing.graph.trace import trace
from penjing.terms.noise import Noise, Start
from penjing.terms.priors import Ard, DiracFixed
from tiny import tiny

X = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def noise(model: nn.Module, **options: Any) -> Noise:
    graph = trace(model, (X,))
    site = next(s for s in graph.sites if s.name == "conv1")
    start = {site.name: Start(torch.full((site.size,), 0.5), torch.full((site.size,), -2.0), 0.1)}
    return Noise(graph, start, **{"prior": Ard(), "lr": 0.01, "steps": 10, **options})


def test_draws_differ_between_samples_and_units_and_are_shared_over_positions() -> None:
    model = tiny()
    term = noise(model)
    term.attach(model)
    model.train()
    drawn = term._factors(6)["conv1"]
    assert drawn.shape == (6, 32)
    assert len(drawn.unique()) == drawn.numel()
    assert float(drawn.detach().mean()) == pytest.approx(0.5, abs=0.1)
    term.detach()


def test_evaluation_sees_the_means() -> None:
    model = tiny().eval()
    term = noise(model)
    with torch.no_grad():
        plain = model(X)
        term.attach(model)
        first, second = model(X), model(X)
        term.detach()
        again = model(X)
    assert torch.equal(first, second) and not torch.equal(first, plain) and torch.equal(again, plain)


def test_the_gates_have_an_optimiser_of_their_own_and_the_model_does_not_know_them() -> None:
    model = tiny()
    term = noise(model)
    extras = term.attach(model)
    mine = [p for group in term.optimizer().param_groups for p in group["params"]]
    assert len(extras) == 3 and len(mine) == 2 and term.optimizer().defaults["lr"] == 0.01
    assert not {id(p) for p in mine} & {id(p) for p in model.parameters()}
    term.detach()


def test_the_divergence_is_weighed_by_beta() -> None:
    model = tiny()
    term = noise(model)
    term.attach(model)
    expected = 0.1 * 32 * float(Ard().kl(torch.tensor(0.5), torch.tensor(-2.0)))
    assert float(term(X, None, None).detach()) == pytest.approx(expected, rel=1e-5)
    term.detach()


def test_annealed_noise_follows_the_steps() -> None:
    model = tiny()
    term = noise(model, prior=DiracFixed(), steps=4)
    seen = []
    for _ in range(4):
        seen.append(float(term.learned()["conv1"][1][0]) ** 0.5)
        term.after_step()
    seen.append(float(term.learned()["conv1"][1][0]) ** 0.5)
    assert seen == pytest.approx([10 ** -(1 + i / 2) for i in range(5)], rel=1e-4)
    assert len(term.optimizer().param_groups[0]["params"]) == 1
