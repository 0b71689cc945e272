"""Scores from how much the logits would change to first order: no labels, and no vanishing where the loss is zero."""

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
class jacobian:  # noqa: N801 - the name a recipe writes
    """Score a unit by the squared change of the logits that its removal causes, to first order.

    A network that has learned its training pictures has no loss left on them, and gradients of the loss tell
    nothing; its logits still move. The score is the mean over samples of the squared norm of the logits' derivative
    by a gate on the channel, estimated with one vector of random signs a sample. With half the squared change of the
    logits as the loss this is the Gauss-Newton diagonal. Of a whole block the change is measured, not to first order,
    on at most 128 samples.

    Shapes: [site.size], float64, squared logits; comparable across sites.
    Raises: PlanError when there is no calibration data or the outputs are not logits.
    Differs: our own combination of the gate form of Molchanov et al., Importance Estimation for Neural Network
    Pruning, CVPR 2019, with Hutchinson's estimator; no paper's method.
    """

    comparable: ClassVar[bool] = True

    def __call__(self, site: Site, evidence: Evidence) -> Tensor:
        """Return the mean squared first-order change of the logits."""
        if site.kind == "layers":
            return evidence.absence(BLOCK_SAMPLES).of_logits(site)
        if site.kind == "weights":
            saliency = evidence.of_logits.saliency(site.slots[0].tensor)
            return saliency.double().flatten() / len(evidence.batches)
        return evidence.of_logits.gate_gradients(site).double().square().mean(0)

    def of_noise(self, weight: str, evidence: Evidence) -> float:
        """Return the mean squared first-order change of the logits by noise as large as each entry of a weight.

        What ranks and bits leave of a layer differs from it by a share of its squares; of this number the same share
        is their score beside that of channels.

        Raises: PlanError as for channels.
        """
        samples = sum(len(x) for x, _ in evidence.batches) / max(len(evidence.batches), 1)
        # Saliency squares the gradient of a batch's mean; the signs of its samples are independent.
        return float(evidence.of_logits.saliency(weight).sum()) * samples / max(len(evidence.batches), 1)
