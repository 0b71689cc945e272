"""Scores from the scales that batch norm has learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from penjing.core.errors import PlanError
from penjing.core.registry import register
from penjing.core.sites import Site
from penjing.criteria.needs import only
from penjing.graph.evidence import Evidence


@register("criterion")
@dataclass(frozen=True)
class bn_gamma:  # noqa: N801 - the name a recipe writes
    """Score a channel by the absolute scale of its batch norm, averaged over all norms it passes.

    Meant for networks trained with a penalty on the scales; one threshold then serves the whole network.

    Shapes: [site.size], float64; comparable across sites.
    Raises: PlanError for a site that no batch norm scales.
    Paper: Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017, section 3.
    """

    comparable: ClassVar[bool] = True

    def __call__(self, site: Site, evidence: Evidence) -> Tensor:
        """Return the mean absolute scale."""
        only("channels", site, "bn_gamma", "l1 or taylor")
        scales = evidence.scales(site)
        if not scales:
            raise PlanError(
                f"bn_gamma reads batch-norm scales, and {site.name} has none for its {site.size} channels; "
                "use l1, fpgm or taylor, or leave this site out."
            )
        return torch.stack(scales).double().mean(0)
