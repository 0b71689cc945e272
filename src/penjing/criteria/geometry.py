"""Scores from where a filter lies among the others of its layer."""

from __future__ import annotations

from torch import Tensor

from penjing.core.registry import register
from penjing.core.sites import Site
from penjing.criteria.needs import only
from penjing.graph.evidence import Evidence


@register("criterion")
def fpgm(site: Site, evidence: Evidence) -> Tensor:
    """Score a channel by the summed distance of its filter to all others: near the geometric median, others replace it.

    Shapes: [site.size], float64.
    Raises: PlanError for sites of single weights.
    Paper: He et al., Filter Pruning via Geometric Median for Deep Convolutional Neural Networks Acceleration, CVPR
    2019.
    """
    only("channels", site, "fpgm", "l1 or lamp")
    return distances(evidence.filters(site)).sum(1)


def distances(filters: Tensor) -> Tensor:
    """Return the Euclidean distances between the rows of [filters, entries]: [filters, filters], float64."""
    # The product form costs one matrix product; in float64 it still tells equal rows from close ones.
    rows = filters.double()
    norms = rows.square().sum(1)
    squared = (norms[:, None] + norms - 2 * rows @ rows.T).clamp_min(0)
    return squared.fill_diagonal_(0).sqrt()
