"""Shared weights: a few numbers a layer, found by clustering its weights, and then trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.core.registry import register
from penjing.packing.levels import Levels
from penjing.quantizers.base import Quantizer, Weights, scaled_gradient

ROUNDS = 100
Floats = NDArray[np.float64]


@register("quantizer")
@dataclass(frozen=True)
class codebook(Quantizer):  # noqa: N801  (registered under its own name)
    """Cluster a layer's weights, write each as the number of its cluster, and train the centroids.

    A weight that has zeros gives one level to them: they stay zero, and the others are clustered alone.

    Paper: Han, Mao, Dally, Deep Compression, 2016, eqs. 2 and 3; clusters start evenly spaced from the smallest weight
    to the largest. Its rates are 8 bits for convolutions and 5 for linear layers.
    Differs: a level's ``gradient`` is the mean over its weights, which goes with the learning rate of other layers. The
    paper's "sum" grows with the layer and wants a rate of about 1e-4.
    """

    widths: ClassVar[tuple[int, ...]] = (1, 2, 3, 4, 5, 6, 7, 8)
    usual: ClassVar[int] = 4

    gradient: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        if self.gradient not in ("mean", "sum"):
            raise PlanError(f"codebook: gradient is mean or sum, not {self.gradient!r}.")

    def weights(self, shape: tuple[int, ...], bits: int) -> Shared:
        """Return what rounds a weight."""
        return Shared(shape, bits, self.gradient == "mean")

    def stored(self, shape: tuple[int, ...], bits: int) -> int:
        """Return the bits of the codes and of the table."""
        return bits * math.prod(shape) + 32 * _levels(shape, bits)


class Shared(Weights):
    """A table, which is trained, and frozen codes.

    Shapes: codes uint8 [numbers]; table [levels]; part [levels], what a level's gradient is multiplied by: 0 for that
    of the zeros, 1 over the places of the others, or 1 where the gradient is the sum.
    """

    latent: ClassVar[bool] = False
    codes: Tensor
    part: Tensor

    def __init__(self, shape: tuple[int, ...], bits: int, mean: bool) -> None:
        super().__init__(bits)
        self.shape, self.mean = shape, mean
        levels = _levels(shape, bits)
        self.table = nn.Parameter(torch.zeros(levels))
        self.register_buffer("codes", torch.zeros(math.prod(shape), dtype=torch.uint8))
        self.register_buffer("part", torch.ones(levels))

    def start(self, weight: Tensor) -> Tensor:
        """Cluster the weight."""
        flat = weight.detach().flatten().double().cpu().numpy()
        zeros = flat == 0
        reserved = int(zeros.any())
        table, codes = np.zeros(len(self.table)), np.zeros(flat.size, dtype=np.uint8)
        if not zeros.all():
            table[reserved:], found = cluster(flat[~zeros], len(table) - reserved)
            codes[~zeros] = found + np.uint8(reserved)
        places = np.maximum(np.bincount(codes, minlength=len(table)), 1).astype(np.float64)
        part = 1 / places if self.mean else np.ones(len(table))
        part[:reserved] = 0
        with torch.no_grad():
            self.table.copy_(torch.from_numpy(table))
            self.codes.copy_(torch.from_numpy(codes))
            self.part.copy_(torch.from_numpy(part))
        return super().start(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the level of each number; ``weight`` has no part in it."""
        return scaled_gradient(self.table, self.part).gather(0, self.codes.long()).view(self.shape)

    def levels(self, weight: Tensor) -> Levels:
        """Return table and codes."""
        return Levels(self.codes.cpu(), self.table.detach().float().cpu(), torch.tensor(1.0), self.shape, self.bits)


def _levels(shape: tuple[int, ...], bits: int) -> int:
    return min(1 << bits, math.prod(shape))


def cluster(values: Floats, levels: int) -> tuple[Floats, NDArray[np.uint8]]:
    """Return the rising centroids [levels] of a clustering of numbers, and the cluster of each number.

    Lloyd's rounds from evenly spaced centroids; a cluster without numbers keeps its centroid. In one dimension a
    cluster is a run of the sorted numbers, so that a round costs one bisection and one difference of running sums a
    level, however many numbers there are. With no more distinct numbers than levels, those are the centroids.
    """
    ordered = np.sort(values)
    distinct = ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])]
    if len(distinct) <= levels:
        centroids = np.concatenate([distinct, np.full(levels - len(distinct), distinct[-1])])
        return centroids, np.searchsorted(distinct, values).astype(np.uint8)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centroids = np.linspace(ordered[0], ordered[-1], levels)
    ends = np.zeros(0, dtype=np.int64)
    for _ in range(ROUNDS):
        before, ends = ends, _ends(ordered, centroids)
        if np.array_equal(before, ends):
            break
        counts = np.diff(ends)
        centroids = np.where(counts, np.diff(sums[ends]) / np.maximum(counts, 1), centroids)
    return centroids, np.searchsorted(_between(centroids), values).astype(np.uint8)


def _ends(ordered: Floats, centroids: Floats) -> NDArray[np.int64]:
    inner = np.searchsorted(ordered, _between(centroids), side="right")
    return np.concatenate([[0], inner, [len(ordered)]])


def _between(centroids: Floats) -> Floats:
    """Return where one cluster ends and the next begins; what lies there belongs to the lower one."""
    return (centroids[1:] + centroids[:-1]) / 2
