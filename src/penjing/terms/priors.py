"""Priors of recursive Bayesian pruning: what a gate's noise costs, in nats.

Each is a function of the mean μ and the log variance ln σ² of a gate's Gaussian posterior. Reconstruction: the paper's
own density is not known to us, so a prior is one replaceable object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor


class Prior(Protocol):
    """What a gate's noise costs; one that is ``Annealing`` as well sets σ, which is learned otherwise."""

    def kl(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """Return the divergence of each gate's posterior from its prior, in nats; shape as the means."""


@runtime_checkable
class Annealing(Protocol):
    """A prior under which σ follows a schedule instead of being learned."""

    def deviation(self, progress: float) -> float:
        """Return σ after this share of the training."""


@dataclass(frozen=True)
class Ard:
    """A zero-mean Gaussian of learned width for each gate: KL = ½ ln(1 + μ² / σ²).

    The evidence is maximal at a prior variance of μ² + σ². Of a gate that the data do not need μ and σ go to zero
    together, so that prior and posterior collapse to a point mass at zero: sparse, and like a Dirac impulse.
    """

    def kl(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """Return ½ ln(1 + μ² / σ²), which does not overflow where σ vanishes."""
        return 0.5 * F.softplus(mu.square().clamp_min(1e-30).log() - logvar)


@dataclass(frozen=True)
class DiracFixed(Ard):
    """The same divergence with σ annealed from ``first`` to ``last``: survivors end like a Dirac impulse too."""

    first: float = 1e-1
    last: float = 1e-3

    def deviation(self, progress: float) -> float:
        """Return σ, which falls by a constant factor a step."""
        return float(self.first * (self.last / self.first) ** min(max(progress, 0.0), 1.0))


@dataclass(frozen=True)
class LogUniform:
    """The improper log-uniform prior of variational dropout, with α = σ² / μ².

    Paper: Molchanov, Ashukha, Vetrov, Variational Dropout Sparsifies Deep Neural Networks, ICML 2017, eq. 14: the
    constants are theirs.
    """

    def kl(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """Return k1 - k1 sigmoid(k2 + k3 ln α) + ½ ln(1 + 1/α)."""
        log_alpha = logvar - mu.square().clamp_min(1e-30).log()
        return 0.63576 * (1 - torch.sigmoid(1.87320 + 1.48695 * log_alpha)) + 0.5 * F.softplus(-log_alpha)


PRIORS: Mapping[str, type[Prior]] = {"ard": Ard, "dirac_fixed": DiracFixed, "loguniform": LogUniform}
"""Priors by the name that a recipe writes."""
