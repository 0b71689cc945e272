"""Rules that choose the ranks of one layer; they know the factorisation and the layer, no budget of a network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from penjing.core.errors import PlanError
from penjing.factors.base import Factorization, Ranks
from penjing.factors.evbmf import evbmf
from penjing.factors.layer import LayerSpec
from penjing.factors.spectra import Axis


def by_ratio(factorization: Factorization, spec: LayerSpec, ratio: float, size: Sequence[int] | None = None) -> Ranks:
    """Return the largest ranks, in one proportion to the full, whose chain costs the layer's by ``ratio`` at most.

    Counted are parameters, or MACs where the size of the input is given. The least is rank 1 along each axis.

    Raises: PlanError for a ratio that is not above 1.
    """
    if not 1 < ratio < math.inf:
        raise PlanError(f"A layer is made smaller by a ratio above 1, such as 2; got {ratio}.")
    full = factorization.full(spec)
    limit = (spec.macs(size) if size is not None else spec.params) / ratio

    def at(step: int) -> Ranks:
        return tuple(max(1, n * step // max(full)) for n in full)

    def cost(step: int) -> int:
        made = factorization.cost(spec, at(step), size)
        return made.params if size is None else made.macs

    low, high = 1, max(full)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(middle) <= limit else (low, middle - 1)
    return at(low)


def by_energy(axes: Sequence[Axis], share: float) -> Ranks:
    """Return the smallest ranks that keep this share of the squared weights.

    With several axes each may lose its part of the rest, so that together they keep the share too.

    Raises: PlanError for a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise PlanError(f"A share of the energy lies above 0 and is at most 1; got {share}.")
    ranks = []
    for axis in axes:
        energies = axis.energies.numpy()
        lost = energies.sum() - np.cumsum(energies)
        # Rounding of the sums must not cost a rank.
        allowed = energies.sum() * ((1 - share) / len(axes) + 1e-12)
        ranks.append(int(np.argmax(lost <= allowed)) + 1)
    return tuple(ranks)


def by_evbmf(axes: Sequence[Axis], weaken: float = 1.0, least: int = 1) -> Ranks:
    """Return the ranks that EVBMF tells apart from noise: r = full - weaken · (full - EVBMF's).

    Of the groups of a layer the one that needs most decides. Where EVBMF finds noise alone the rank stays full.

    Raises: PlanError for a weakening outside [0, 1], or axes that belong to no matrix.
    Paper: Kim et al., ICLR 2016, section 3.2; the weakening is practice that came later.
    """
    if not 0 <= weaken <= 1:
        raise PlanError(f"EVBMF is weakened by a number from 0 to 1; got {weaken}.")
    ranks = []
    for axis in axes:
        if not axis.rows:
            raise PlanError(f"The {axis.name} of this factorisation is no rank of a matrix; choose by ratio or energy.")
        full = axis.values.shape[1]
        found = max(evbmf(row.numpy(), axis.rows, axis.columns).rank for row in axis.values)
        found = found or full
        ranks.append(min(full, max(least, math.ceil(full - weaken * (full - found) - 1e-9))))
    return tuple(ranks)


def rounded(ranks: Sequence[int], full: Sequence[int], multiple: int) -> Ranks:
    """Return the ranks rounded up to a multiple, at most full: what a processor computes at once is not left idle.

    >>> rounded([3, 17], [8, 20], 8)
    (8, 20)
    """
    return tuple(min(most, -(-rank // multiple) * multiple) for rank, most in zip(ranks, full, strict=True))
