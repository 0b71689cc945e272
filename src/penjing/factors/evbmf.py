"""Empirical variational Bayesian matrix factorisation: how much of a matrix is more than noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from penjing.core.errors import PlanError
from penjing.core.units import Floats

GRID = 64
"""Variances tried before the minimum is refined: the free energy may have more than one."""


@dataclass(frozen=True, eq=False)
class Evbmf:
    """The rank, the variance of the noise, the least singular value that is not noise, and what is left of each."""

    rank: int
    variance: float
    threshold: float
    shrunk: Floats


def evbmf(squared: Floats, rows: int, columns: int, variance: float | None = None) -> Evbmf:
    """Return the global solution for a matrix with these squared singular values, falling.

    The search for the variance is along its logarithm, so that scaling a layer changes nothing. A matrix of one row has
    rank 1, a matrix of zeros rank 0. Trained weights are no low rank with independent noise: the rank is a heuristic.

    Shapes: squared [min(rows, columns)].

    Raises: PlanError for singular values that are not of such a matrix, or a variance that is not positive.
    Paper: Nakajima et al., Global Analytic Solution of Fully-observed Variational Bayesian Matrix Factorization,
    JMLR 2013, theorem 2 and corollary 1, with 2.5129 √α for the root of Φ(τ) + Φ(τ/α).
    """
    squared = np.asarray(squared, dtype=np.float64)
    small, large = sorted((rows, columns))
    if squared.shape != (small,) or not np.isfinite(squared).all() or (squared < 0).any():
        raise PlanError(
            f"A matrix of {rows} x {columns} has {small} squared singular values, finite and not negative; got "
            f"{squared.tolist()[:4]} of shape {list(squared.shape)}."
        )
    if variance is not None and not 0 < variance < math.inf:
        raise PlanError(f"The variance of noise must be positive and finite; got {variance}.")
    top = squared.max(initial=0.0)
    if top == 0:
        return Evbmf(0, 0.0, 0.0, np.zeros(small))
    if small == 1:
        return Evbmf(1, 0.0, 0.0, np.sqrt(squared))
    alpha = small / large
    tau = 2.5129 * math.sqrt(alpha)
    edge = (1 + tau) * (1 + alpha / tau)
    guarded = np.maximum(squared, 1e-12 * top)
    if variance is None:
        variance = _variance(guarded, large, alpha, edge)
    threshold = math.sqrt(large * variance * edge)
    kept = np.sqrt(squared) > threshold
    noise = 1 - (small + large) * variance / guarded
    root = np.sqrt(np.maximum(noise**2 - 4 * small * large * (variance / guarded) ** 2, 0))
    return Evbmf(int(kept.sum()), variance, threshold, np.where(kept, np.sqrt(squared) / 2 * (noise + root), 0.0))


def _variance(squared: Floats, large: int, alpha: float, edge: float) -> float:
    """Return the variance of least free energy between the bounds that the theorem gives."""
    small = len(squared)
    start = min(math.ceil(small / (1 + alpha)) - 1, small) - 1
    least = max(squared[start + 1] / (large * edge), squared[start + 1 :].mean() / large)
    most = squared.sum() / (small * large)
    low, high = math.log(min(least, most)), math.log(most)

    def energy(log: float) -> float:
        x = squared / (large * math.exp(log))
        noise, signal = x[x <= edge], x[x > edge]
        below = signal - (1 + alpha)
        tau = (below + np.sqrt(np.maximum(below**2 - 4 * alpha, 0))) / 2
        told = signal - tau + np.log((tau + 1) / signal) + alpha * np.log(tau / alpha + 1)
        return float((noise - np.log(noise)).sum() + told.sum())

    grid = np.linspace(low, high, GRID)
    best = int(np.argmin([energy(log) for log in grid]))
    around = grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)]
    if around[0] == around[1]:
        return math.exp(low)
    found = minimize_scalar(energy, bounds=around, method="bounded", options={"xatol": 1e-10})
    return math.exp(found.x if found.fun < energy(grid[best]) else grid[best])
