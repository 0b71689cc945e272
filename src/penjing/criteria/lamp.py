"""Magnitude made comparable across layers by what would be left of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from penjing.core.registry import register
from penjing.core.sites import Site
from penjing.criteria.needs import units
from penjing.graph.evidence import Evidence


@register("criterion")
@dataclass(frozen=True)
class lamp:  # noqa: N801 - the name a recipe writes
    """Score a unit by its squared norm as a share of all units of its site at least as large.

    The largest unit of every site scores 1, so that one global threshold never empties a layer, and scaling a layer
    changes nothing. Among equal units the later ones score higher.

    Shapes: [site.size], float64 in [0, 1]; comparable across sites.
    Paper: Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021.
    Differs: the paper scores single weights; channels are scored by their filters' squared norms in the same way.
    """

    comparable: ClassVar[bool] = True

    def __call__(self, site: Site, evidence: Evidence) -> Tensor:
        """Return w_u² / Σ_{v ≥ u} w_v²."""
        units(site, "lamp")
        return remaining(evidence.filters(site).double().square().sum(1))


def remaining(squares: Tensor) -> Tensor:
    """Return each square's share of all those at least as large, [n]."""
    order = squares.argsort(stable=True)
    ascending = squares[order]
    at_least = ascending.flip(0).cumsum(0).flip(0)
    scores = torch.zeros_like(squares)
    # Units of an all-zero site have no share of anything.
    scores[order] = torch.where(ascending > 0, ascending / at_least, 0.0)
    return scores
