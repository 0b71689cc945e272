"""The 3-sigma rule: how far a weight lies from the mean of its layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from penjing.core.registry import register
from penjing.core.sites import Site
from penjing.criteria.needs import only
from penjing.graph.evidence import Evidence


@register("criterion")
@dataclass(frozen=True)
class deviation:  # noqa: N801 - the name a recipe writes
    """Score a weight by its distance from the mean of its layer's weights, in standard deviations.

    Keeping what scores above k keeps the outliers: of normal weights 0.27 % at k = 3, 31.7 % at k = 1.
    ``centred=False`` measures the distance from zero instead: keeping what scores above q is then the threshold of Han
    et al. with quality parameter q. Weights that are exactly zero were removed before: they score 0 and take no part
    in mean and deviation, which would otherwise shrink with each round. A channel has no such score: the rule is about
    the distribution of single weights.

    Shapes: [site.size], float64, standard deviations (of the population); comparable across sites.
    Raises: PlanError for sites of channels.
    Paper: reconstruction of the threshold μ ± 3σ of combined pruning with searched sparsity; the thresholds of Han
    et al., NIPS 2015, section 3, are multiples of the same standard deviation.
    """

    centred: bool = True

    comparable: ClassVar[bool] = True

    def __call__(self, site: Site, evidence: Evidence) -> Tensor:
        """Return |w - mean| / std, or |w| / std where the distance is from zero."""
        only("weights", site, "deviation", "l1, l2 or taylor")
        w = evidence.filters(site).double().flatten()
        left = w[w != 0]
        if not len(left):
            return torch.zeros_like(w)
        std = left.std(correction=0)
        # Equal weights do not deviate; rounding in their mean must not be divided by rounding in their deviation.
        if std <= 1e-12 * left.abs().max():
            return torch.zeros_like(w)
        centre = left.mean() if self.centred else 0.0
        return torch.where(w == 0, 0.0, (w - centre).abs() / std)
