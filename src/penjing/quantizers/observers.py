"""Which step rounds given numbers best, by their largest, a percentile, the squared error or the entropy.

An observer maps numbers [rows, n] and the least and greatest code of a grid to one step a row, which is never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from penjing.quantizers.uniform import LEAST

Observer = Callable[[Tensor, int, int], Tensor]

Start = Literal["mean", "max", "percentile", "mse", "entropy"]
"""The names of the observers."""

ENOUGH = 2**16
"""Numbers of a row that a search looks at; of more, some by chance."""

BINS = 2048
TRIED = 128
"""Bins of the histogram of ``entropy``, and how many clips it tries."""


def largest(x: Tensor, lowest: int, highest: int) -> Tensor:
    """Return the smallest step with which nothing is clipped."""
    above = x.amax(1) / highest
    return _safe(torch.maximum(above, x.amin(1) / lowest) if lowest else above)


def mean(x: Tensor, lowest: int, highest: int) -> Tensor:
    """Return 2 mean|x| / sqrt(highest), with which learned steps begin.

    Paper: Esser et al., Learned Step Size Quantization, ICLR 2020, section 2.1.
    """
    return _safe(2 * x.abs().mean(1) / highest**0.5)


def percentile(x: Tensor, lowest: int, highest: int, share: float = 0.9999) -> Tensor:
    """Return the step that clips all but a share of the sizes."""
    return _safe(upper(x.abs() if lowest else x, share) / highest)


def upper(x: Tensor, share: float) -> Tensor:
    """Return the number of each row that a share of its numbers does not exceed."""
    n = x.shape[1]
    return x.kthvalue(min(max(int(np.ceil(share * n)), 1), n), dim=1).values


def least_error(x: Tensor, lowest: int, highest: int) -> Tensor:
    """Return the step of the least squared error, to half a percent of the largest that makes sense."""
    whole = largest(x, lowest, highest)
    x = some(x)
    coarse = whole * _best(x, whole, torch.arange(0.05, 1.01, 0.05), lowest, highest)
    fine = _best(x, coarse, 1 + (whole / coarse)[:, None].cpu() * torch.arange(-0.045, 0.05, 0.005), lowest, highest)
    return _safe(coarse * fine)


def squared_error(x: Tensor, step: Tensor, lowest: int, highest: int) -> Tensor:
    """Return the mean squared error of each row rounded by its step."""
    step = step[:, None]
    return ((x / step).round().clamp(lowest, highest) * step - x).square().mean(1)


def entropy(x: Tensor, lowest: int, highest: int) -> Tensor:
    """Return the step whose clip keeps the distribution of the sizes best, by the Kullback-Leibler divergence.

    Paper: Migacz, 8-bit Inference with TensorRT, GTC 2017. Differs: zeros, which every step has, do not count.
    """
    sizes = x.abs() if lowest else x.clamp_min(0)
    tops = sizes.amax(1)
    clips = [_clip(row[row > 0], float(top), highest + 1) for row, top in zip(sizes, tops, strict=True)]
    return _safe(x.new_tensor(clips) / highest)


OBSERVERS: Mapping[Start, Observer] = {
    "mean": mean, "max": largest, "percentile": percentile, "mse": least_error, "entropy": entropy,
}  # fmt: skip
"""By the names that quantizers take for their start."""


def _safe(step: Tensor) -> Tensor:
    """Return steps that can be divided by; where there is nothing but zeros any will do."""
    return torch.where(step > 0, step.clamp_min(LEAST), 1.0)


def some(x: Tensor) -> Tensor:
    """Return as many numbers of each row as a search needs, the same ones every time."""
    if x.shape[1] <= ENOUGH:
        return x
    chosen = torch.randint(x.shape[1], (ENOUGH,), generator=torch.Generator().manual_seed(0))
    return x[:, chosen.to(x.device)]


def _best(x: Tensor, step: Tensor, shares: Tensor, lowest: int, highest: int) -> Tensor:
    """Return, for each row, the share of its step with the least error; shares are [tried] or [rows, tried]."""
    tried = shares.to(x).expand(len(x), -1).clamp_min(1e-3)
    errors = torch.stack([squared_error(x, step * share, lowest, highest) for share in tried.unbind(1)], 1)
    return tried.gather(1, errors.argmin(1, keepdim=True))[:, 0]


def _clip(sizes: Tensor, top: float, levels: int) -> float:
    """Return where to clip sizes, all above 0, so that so many levels tell most."""
    if levels >= BINS or not len(sizes):
        return top
    return tells_most(torch.histc(sizes.float(), BINS, 0, top).cpu().double().numpy(), top, levels)


def tells_most(counts: np.ndarray, top: float, levels: int) -> float:
    """Return where to clip sizes whose ``BINS`` counts up to ``top`` are given, so that so many levels tell most."""
    ends = np.unique(np.linspace(levels, BINS, TRIED).astype(int))
    found = [_divergence(counts, int(end), levels) for end in ends]
    return float(top * ends[int(np.argmin(found))] / BINS)


def _divergence(counts: np.ndarray, end: int, levels: int) -> float:
    """Return the divergence of what so many levels tell of the first bins from all, clipped to these bins."""
    inside = counts[:end]
    clipped = inside.copy()
    clipped[-1] += counts[end:].sum()
    starts = np.linspace(0, end, levels, endpoint=False).astype(int)
    there = (inside > 0).astype(float)
    sums, filled = np.add.reduceat(inside, starts), np.add.reduceat(there, starts)
    spread = np.repeat(sums / np.maximum(filled, 1), np.diff([*starts, end])) * there
    p, q = clipped / clipped.sum(), (spread + 1e-9) / (spread + 1e-9).sum()
    told = p > 0
    return float((p[told] * np.log(p[told] / q[told])).sum())
