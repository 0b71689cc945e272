"""Scores from what the following layers read: how often it is zero, how varied it is, how rich its maps are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from penjing.core.errors import RecipeError
from penjing.core.registry import register
from penjing.core.sites import Site
from penjing.criteria.needs import only
from penjing.graph.evidence import Evidence


@register("criterion")
@dataclass(frozen=True)
class apoz:  # noqa: N801 - the name a recipe writes
    """Score a channel by how often it fires: one minus its average percentage of zeros.

    Zeros are counted as integers over all samples and positions of each layer that reads the channel; the shares of
    several reading layers are averaged. Where a layer reads negative values, no ReLU stands before it and exact zeros
    say nothing: there, activations below ``epsilon`` times the root mean square of the sample count as zeros.

    Shapes: [site.size], float64 in [0, 1].
    Raises: PlanError for sites without activations.
    Paper: Hu et al., Network Trimming, arXiv 1607.03250, 2016, equation 1.
    Differs: the rule for activations other than ReLU is ours.
    """

    epsilon: float = 0.05

    def __call__(self, site: Site, evidence: Evidence) -> Tensor:
        """Return the share of activations that are not zero."""
        only("channels", site, "apoz", "l1 or taylor")
        counts = evidence.collect(site, f"zeros {self.epsilon}", self._count)
        return torch.stack([_fired(*count.unbind(1)) for count in counts]).mean(0)

    def _count(self, x: Tensor) -> Tensor:
        """Count zero, small, negative and all activations of each unit: [units, 4], int64."""
        flat = x.flatten(2)
        # Taken sample by sample, the scale does not depend on how the data is batched.
        rms = flat.float().square().mean((1, 2), keepdim=True).sqrt()
        zero, small, negative = (which.sum((0, 2)) for which in (flat == 0, flat.abs() <= self.epsilon * rms, flat < 0))
        return torch.stack([zero, small, negative, torch.full_like(zero, len(x) * flat.shape[2])], dim=1)


def _fired(zero: Tensor, small: Tensor, negative: Tensor, every: Tensor) -> Tensor:
    silent = small if bool(negative.any()) else zero
    return 1 - silent.double() / every


@register("criterion")
@dataclass(frozen=True)
class entropy:  # noqa: N801 - the name a recipe writes
    """Score a channel by the entropy of its pooled activation over the calibration samples.

    The range between the 0.1 and 99.9 percentiles of each channel is cut into ``bins``; what lies outside counts in
    the outermost bins, so that one outlier cannot squeeze all others into one bin. Several reading layers are averaged.

    Shapes: [site.size], float64, nats. With n samples the value is too low by about (bins - 1) / 2n.
    Raises: PlanError for sites without activations.
    Paper: Luo and Wu, An Entropy-based Pruning Method for CNN Compression, arXiv 1706.05791, 2017.
    Differs: the percentiles are ours; the paper bins the full range.
    """

    bins: int = 100

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise RecipeError(f"entropy needs at least 2 bins; got {self.bins}.")

    def __call__(self, site: Site, evidence: Evidence) -> Tensor:
        """Return the entropy of each channel."""
        only("channels", site, "entropy", "l1 or taylor")
        pooled = evidence.collect(site, "pooled", _pool, join=True)
        return torch.stack([self._entropy(x.double()) for x in pooled]).mean(0)

    def _entropy(self, x: Tensor) -> Tensor:
        """Return the entropy of each column of [samples, units]."""
        n, units = x.shape
        ordered = x.sort(dim=0).values
        cut = math.ceil(0.001 * (n - 1))
        low, high = ordered[min(cut, n - 1)], ordered[max(n - 1 - cut, 0)]
        rare = high <= low  # all but the outliers are equal, so that only they can tell the channel from a constant
        low, high = torch.where(rare, ordered[0], low), torch.where(rare, ordered[-1], high)
        # A constant channel's mean differs in its last digits between samples; that is not a range.
        varies = high - low > 1e-5 * ordered.abs().amax(0)
        span = torch.where(varies, high - low, 1.0)
        place = ((x - low) / span * self.bins).long().clamp(0, self.bins - 1) * varies
        place += torch.arange(units, device=x.device) * self.bins
        counts = torch.bincount(place.flatten(), minlength=units * self.bins).view(units, self.bins)
        share = counts.double() / n
        return -torch.xlogy(share, share).sum(1)


def _pool(x: Tensor) -> Tensor:
    return x.flatten(2).double().mean(2).float()


@register("criterion")
@dataclass(frozen=True)
class hrank:  # noqa: N801 - the name a recipe writes
    """Score a channel by the mean rank of its feature maps.

    Ranks are computed in float32 with tolerance max(H, W)·eps·S_max, on at most ``images`` samples, and averaged over
    several reading layers. Channels of equal rank are ordered by their mean absolute activation, added so small
    that it never reorders different ranks. What reaches a linear layer, flattened or pooled, is a vector a channel, of
    rank 0 or 1: there the mean activation decides nearly alone.

    Shapes: [site.size], float64.
    Raises: PlanError for sites without activations.
    Paper: Lin et al., HRank: Filter Pruning using High-Rank Feature Map, CVPR 2020.
    Differs: the tie-break is ours; the paper takes 500 images.
    """

    images: int = 512

    def __post_init__(self) -> None:
        if self.images < 1:
            raise RecipeError(f"hrank needs at least 1 image; got {self.images}.")

    def __call__(self, site: Site, evidence: Evidence) -> Tensor:
        """Return the mean rank of each channel."""
        only("channels", site, "hrank", "l1 or taylor")
        found = [sums.unbind(1) for sums in evidence.sample(self.images).collect(site, "ranks", _ranks)]
        # Over a common denominator the ranks are whole numbers, exactly, and half of one is room for the tie-break.
        maps = [int(count[0]) for _, _, count in found]
        common = math.lcm(*maps)
        ranks = torch.stack([rank * (common // n) for (rank, _, _), n in zip(found, maps, strict=True)]).sum(0)
        size = torch.stack([total / n for (_, total, _), n in zip(found, maps, strict=True)]).mean(0)
        tie = size / size.max().clamp_min(torch.finfo(torch.float64).tiny)
        return (ranks + tie / 2) / (common * len(found))


def _ranks(x: Tensor) -> Tensor:
    """Sum up rank and mean absolute value of the maps of each unit, and count the maps: [units, 3], float64."""
    x = x.float()
    maps = x.unsqueeze(2) if x.dim() == 3 else x
    maps = maps.reshape(x.shape[0], x.shape[1], -1, *maps.shape[-2:])
    rank = torch.zeros(maps.shape[:3], dtype=torch.float64, device=x.device)
    alive = (maps != 0).any(-1).any(-1)
    thin = min(maps.shape[-2:]) == 1
    rank[alive] = 1.0 if thin else torch.linalg.matrix_rank(maps[alive]).double()
    size = maps.abs().double().mean((-2, -1))
    return torch.stack([rank, size, torch.ones_like(rank)], dim=-1).sum((0, 2))
