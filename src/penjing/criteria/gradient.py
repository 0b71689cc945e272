"""Scores from how much the loss would change to first order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from penjing.core.registry import register
from penjing.core.sites import Site
from penjing.criteria.needs import BLOCK_SAMPLES
from penjing.graph.evidence import Evidence


@register("criterion")
@dataclass(frozen=True)
class taylor:  # noqa: N801 - the name a recipe writes
    """Score a unit by the squared change of the loss that its removal causes, to first order.

    A channel has a gate at every layer that reads it; its score is the mean over the samples of the squared
    derivative of the loss by the gate. A weight has the squared product with its gradient, averaged over batches. A
    whole block has the squared change itself, measured on at most 128 samples.
    The loss is the cross-entropy with the labels, or with the model's own predictions where there are none.

    Shapes: [site.size], float64, squared loss; comparable across sites.
    Raises: PlanError when there is no calibration data or the outputs are not logits.
    Paper: Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019.
    Differs: the mean over samples is exact, where the paper squares the gradient of minibatches and keeps a moving
    average with momentum 0.9.
    """

    comparable: ClassVar[bool] = True

    def __call__(self, site: Site, evidence: Evidence) -> Tensor:
        """Return the mean squared first-order change of the loss."""
        if site.kind == "layers":
            return evidence.absence(BLOCK_SAMPLES).of_loss(site)
        if site.kind == "weights":
            return evidence.saliency(site.slots[0].tensor).double().flatten() / len(evidence.batches)
        return evidence.gate_gradients(site).double().square().mean(0)
