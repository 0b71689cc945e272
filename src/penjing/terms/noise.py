"""Gaussian dropout noise on gates: the redundancy indicator of recursive Bayesian pruning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from penjing.graph.gates import Gates
from penjing.graph.graph import Graph
from penjing.terms.clock import counter
from penjing.terms.priors import Annealing, Prior


@dataclass(frozen=True)
class Start:
    """Where the inference of one site begins: means and log variances of its gates, [units], and what KL weighs."""

    mu: Tensor
    logvar: Tensor
    beta: float


@dataclass(eq=False)
class Noise:
    """Multiply every unit by θ = μ + σ ε, one draw a sample and unit, and add β KL to the loss.

    The gates stand where layers read the units, behind normalisation and activation. In evaluation θ is μ. μ and ln σ²
    are learned by Adam at ``lr``; ``steps`` is how many optimiser steps the training has, for priors that anneal σ.
    ``task_weight`` scales the task loss, as that of any term.

    Shapes: μ and ln σ² [units] a site; noise [samples, units], shared over positions.
    """

    graph: Graph
    start: Mapping[str, Start]
    prior: Prior
    lr: float
    steps: int
    task_weight: float = 1.0
    _mu: dict[str, nn.Parameter] = field(init=False, default_factory=dict)
    _logvar: dict[str, nn.Parameter] = field(init=False, default_factory=dict)
    _step: nn.Parameter = field(init=False)
    _handles: list[RemovableHandle] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        """Make the gates' parameters."""
        self.gates = Gates(self.graph, list(self.start))
        self.graph = self.gates.graph
        self._step = counter()
        for name, start in self.start.items():
            self._mu[name] = nn.Parameter(start.mu.clone().float())
            free = not isinstance(self.prior, Annealing)
            self._logvar[name] = nn.Parameter(start.logvar.clone().float(), requires_grad=free)
        self._anneal()

    def attach(self, model: nn.Module) -> list[nn.Parameter]:
        """Set the gates into the model's forward."""
        self._model = model
        self._handles = self.gates.attach(model, self._factors)
        return [*self._mu.values(), *self._logvar.values(), self._step]

    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimiser of the gates."""
        return torch.optim.Adam(
            [p for p in (*self._mu.values(), *self._logvar.values()) if p.requires_grad], lr=self.lr
        )

    def _factors(self, samples: int) -> Mapping[str, Tensor]:
        if not self._model.training:
            return {name: mu.detach() for name, mu in self._mu.items()}
        found = {}
        for name, mu in self._mu.items():
            epsilon = torch.randn(samples, len(mu), device=mu.device)
            found[name] = mu + (0.5 * self._logvar[name]).exp() * epsilon
        return found

    def __call__(self, x: Tensor, outputs: Any, y: Tensor | None) -> Tensor:
        """Return Σ β KL over the sites and their units; the loss it is added to is a mean over samples."""
        total = x.new_zeros(())
        for name, start in self.start.items():
            total = total + start.beta * self.prior.kl(self._mu[name], self._logvar[name]).sum()
        return total

    def after_step(self) -> None:
        """Count the step, and anneal σ where the prior does."""
        self._step.data.add_(1)
        self._anneal()

    def _anneal(self) -> None:
        if isinstance(self.prior, Annealing):
            sigma = self.prior.deviation(float(self._step) / max(self.steps, 1))
            for logvar in self._logvar.values():
                logvar.data.fill_(2 * torch.tensor(sigma).log().item())

    def detach(self) -> None:
        """Take the gates out of the forward; what was learned stays."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def learned(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return mean and variance of each gate by site, [units] each, float64."""
        return {
            name: (mu.detach().double().cpu(), self._logvar[name].detach().double().exp().cpu())
            for name, mu in self._mu.items()
        }
