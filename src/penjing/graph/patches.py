"""What a layer multiplies with its weight, at sampled positions of its output."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from penjing.core.layers import Layer

POSITIONS = 64
"""How many output positions of one sample take part; neighbours tell nearly the same."""


def by_group(weight: Tensor, layer: Layer) -> Tensor:
    """Return a layer's weight as [groups, in, out]."""
    return weight.detach().reshape(layer.groups, layer.out_channels // layer.groups, -1).mT


def by_position(y: Tensor, dim: int) -> Tensor:
    """Return an activation with channels along ``dim`` as [samples, positions, channels]."""
    moved = y.movedim(dim, -1)
    return moved.flatten(1, -2) if moved.dim() > 2 else moved.unsqueeze(1)


def drawn(samples: int, positions: int, generator: torch.Generator) -> Tensor:
    """Return which of so many output positions of each sample take part, [samples, at most ``POSITIONS``]."""
    return torch.rand(samples, positions, generator=generator).argsort(1)[:, :POSITIONS]


def picked(table: Tensor, picks: Tensor) -> Tensor:
    """Return a table's rows [samples, positions, channels] at ``picks`` [samples, n], as [samples * n, channels]."""
    return table[torch.arange(len(table), device=table.device)[:, None], picks].flatten(0, 1)


def patches(x: Tensor, dim: int, layer: Layer, picks: Tensor) -> Tensor:
    """Return what a layer multiplies with its weight at the output positions ``picks`` [samples, n].

    Shapes: [samples * n, groups, channels of a group times kernel].
    """
    if not layer.kernel:
        rows = picked(by_position(x, dim), picks)
        return rows.view(len(rows), layer.groups, -1)
    x = F.pad(x, [p for padding in reversed(layer.padding) for p in (padding, padding)]).contiguous()
    n, channels, *size = x.shape
    by_sample, by_channel, *steps = x.stride()
    spans = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel, strict=True)]
    out = [(s - span) // t + 1 for s, span, t in zip(size, spans, layer.stride, strict=True)]
    windows = x.as_strided(
        (n, *out, channels, *layer.kernel),
        (by_sample, *(s * t for s, t in zip(steps, layer.stride, strict=True)), by_channel,
         *(s * d for s, d in zip(steps, layer.dilation, strict=True))),
    )  # fmt: skip
    places = torch.unravel_index(picks, out)
    rows = windows[(torch.arange(n, device=x.device)[:, None], *places)].flatten(0, 1)
    return rows.reshape(len(rows), layer.groups, -1)
