"""Scores from the size of the weights alone, and the random score every other one must beat."""

from __future__ import annotations

import torch
from torch import Tensor

from penjing.core.random import stream
from penjing.core.registry import register
from penjing.core.sites import Site
from penjing.criteria.needs import units
from penjing.graph.evidence import Evidence


@register("criterion")
def l1(site: Site, evidence: Evidence) -> Tensor:
    """Score a channel by the sum of its filters' absolute weights, a single weight by its magnitude.

    Shapes: [site.size], float64.
    Paper: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, section 3.1; for single weights Han et al.,
    Learning both Weights and Connections for Efficient Neural Networks, NIPS 2015, section 3.
    Differs: channels that several layers write (a residual stream) are scored by all of their filters together; the
    paper takes the projection shortcut's alone.
    """
    units(site, "l1")
    return evidence.filters(site).double().abs().sum(1)


@register("criterion")
def l2(site: Site, evidence: Evidence) -> Tensor:
    """Score a unit by the Euclidean norm of its weights.

    Shapes: [site.size], float64.
    Paper: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, which compares it with l1.
    """
    units(site, "l2")
    return evidence.filters(site).double().square().sum(1).sqrt()


@register("criterion")
def random(site: Site, evidence: Evidence) -> Tensor:
    """Score by chance, the same on every run: the seed and the site's name decide.

    Shapes: [site.size], float64 in [0, 1).
    """
    return torch.from_numpy(stream(evidence.seed, f"criterion/random/{site.name}").random(site.size))
