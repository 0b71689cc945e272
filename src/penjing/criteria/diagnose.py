"""Does the size of a filter tell anything? Compare its spread within a layer with that of pure noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.core.layers import Layer
from penjing.core.units import Floats
from penjing.criteria.geometry import distances
from penjing.graph.graph import Graph

MARGIN = 1.5
"""Up to this multiple of the Gaussian prediction, the spread of norms carries no information."""

FILTERS = 32
"""Layers with fewer filters have too few norms to judge their spread."""


@dataclass(frozen=True)
class Diagnosis:
    """What norm criteria can see in one layer.

    ``entries`` counts the weights of a filter. ``cv_l1`` and ``cv_l2`` are the coefficients of variation (standard
    deviation over mean) of the filters' norms, the expected ones those of independent Gaussian weights. The rank
    correlations are 0 where all filters have the same norm. ``ks`` is the Kolmogorov-Smirnov distance of the
    standardised weights from a normal distribution: an effect size, since with so many weights any p-value rejects.
    """

    layer: str
    filters: int
    entries: int
    cv_l1: float
    cv_l2: float
    expected_cv_l1: float
    expected_cv_l2: float
    spearman_l1_l2: float
    spearman_l2_fpgm: float
    ks: float
    verdict: str

    @property
    def informative(self) -> bool:
        """Whether norms vary more than those of noise do."""
        return self.verdict == "informative"


def diagnose(weight: Tensor, layer: str = "") -> Diagnosis:
    """Judge what norm criteria can see among filters [filters, ...], such as ``evidence.filters(site)``.

    The verdict is "no information" when both norms vary at most 1.5 times as much as those of Gaussian noise: then
    rank by activations or gradients, and spend effort on how much each layer keeps. First and 1x1 convolutions deviate
    from the prediction by themselves.

    Raises: PlanError for fewer than two filters, or weights that are not finite.
    Paper: Huang et al., Rethinking the Pruning Criteria for Convolutional Neural Network, NeurIPS 2021.
    Differs: reconstruction; the covariance is taken as σ²I, and the limit of 1.5 is ours.
    """
    w = weight.detach().double().flatten(1)
    filters, entries = w.shape
    if filters < 2 or entries < 1:
        raise PlanError(
            f"{layer or 'The layer'} has {filters} filters of {entries} weights; two are needed to compare."
        )
    if not bool(torch.isfinite(w).all()):
        raise PlanError(f"{layer or 'The layer'} has weights that are not finite.")
    l1, l2, median = (v.cpu().numpy() for v in (w.abs().sum(1), w.norm(dim=1), distances(w).sum(1)))
    # Of |x| and x² of a normal x: the CV of a sum of d terms, that of the root being half of it.
    expected_l1 = math.sqrt((math.pi / 2 - 1) / entries)
    expected_l2 = 1 / math.sqrt(2 * entries)
    cv_l1, cv_l2 = _variation(l1), _variation(l2)
    noise = cv_l1 <= MARGIN * expected_l1 and cv_l2 <= MARGIN * expected_l2
    return Diagnosis(
        layer=layer,
        filters=filters,
        entries=entries,
        cv_l1=cv_l1,
        cv_l2=cv_l2,
        expected_cv_l1=expected_l1,
        expected_cv_l2=expected_l2,
        spearman_l1_l2=_spearman(l1, l2),
        spearman_l2_fpgm=_spearman(l2, median),
        ks=_distance_from_normal(w.flatten().cpu().numpy()),
        verdict="no information" if noise else "informative",
    )


def report(model: nn.Module, graph: Graph) -> list[Diagnosis]:
    """Diagnose every convolution and linear layer with at least 32 filters, in order of execution."""
    parameters = dict(model.named_parameters())
    layers = {layer.weight: layer for layer in reversed(graph.layers) if layer.weight in parameters}
    return [
        diagnose(_filters(parameters[name], layer), layer.name)
        for name, layer in reversed(layers.items())
        if layer.out_channels >= FILTERS
    ]


def _filters(weight: Tensor, layer: Layer) -> Tensor:
    """Return the weights of a layer as [filters, ...]."""
    if not layer.transposed:
        return weight
    # A transposed convolution keeps its kernels as [in, out / groups, ...].
    by_group = weight.reshape(layer.groups, -1, *weight.shape[1:])
    return by_group.transpose(1, 2).flatten(0, 1)


def _variation(x: Floats) -> float:
    mean = float(x.mean())
    return float(x.std()) / mean if mean else 0.0


def _spearman(a: Floats, b: Floats) -> float:
    from scipy.stats import rankdata  # takes longer to import than the rest of the package

    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def _distance_from_normal(w: Floats) -> float:
    """Return the Kolmogorov-Smirnov statistic of the standardised sample."""
    spread = w.std()
    below = ndtr(np.sort(w - w.mean()) / (spread if spread else 1.0))
    steps = np.arange(len(w) + 1) / len(w)
    return float(max((steps[1:] - below).max(), (below - steps[:-1]).max()))
