"""Crop kernels: the outer rows and columns of taps go, physically, and the padding with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from penjing.core.registry import register
from penjing.core.sites import Site, Slot
from penjing.core.units import Kept
from penjing.graph.graph import Graph
from penjing.graph.kernels import Margin, crop, rings


@register("rewrite")
@dataclass(frozen=True)
class kernels:  # noqa: N801  (registered under its own name)
    """Crop kernels of convolutions: 3x3 becomes 1x3, 3x1 or 1x1, with the padding that keeps the size of the output.

    A unit is the first and the last row of a kernel, in all filters, or its first and last column. Both ends go
    together, since torch pads both alike; a convolution without padding is not cropped. Of kernels of five and more
    ``rows2`` is the second row from either end, with what lies outside of it. Every crop is proved against the original
    whose taps are zero there.
    """

    def find(self, graph: Graph) -> list[Site]:
        """Return a site of one unit for each crop; what lies further out lies within it."""
        sites = []
        for weight, margin in graph.kernels.items():
            size = graph.shapes[weight][2:]
            places = np.arange(np.prod(graph.shapes[weight])).reshape(-1, *size)
            every = list(rings(size, margin))
            for i, (name, taps) in enumerate(every):
                stays = np.zeros(places.shape, dtype=np.bool_)
                stays[:, *(slice(m, k - m) for k, m in zip(size, taps, strict=True))] = True
                index = places[~stays]
                slot = Slot(weight, -1, "out", index, np.zeros(len(index), dtype=np.int64))
                further = every[i + 1][0] if i + 1 < len(every) and _along(every[i + 1][1]) == _along(taps) else ""
                within = f"{weight}/{further}" if further else ""
                sites.append(
                    Site(f"{weight}/{name}", "kernels", 1, (slot,), np.arange(0), least=0, rewrite="kernels",
                         within=within)
                )  # fmt: skip
        return sites

    def crops(self, graph: Graph, kept: Mapping[str, Kept]) -> dict[str, Margin]:
        """Return the taps that go, by weight."""
        found: dict[str, Margin] = {}
        for weight, margin in graph.kernels.items():
            for name, taps in rings(graph.shapes[weight][2:], margin):
                if len(kept.get(f"{weight}/{name}", [0])) == 0:
                    now = found.get(weight, (0,) * len(taps))
                    found[weight] = tuple(map(max, zip(now, taps, strict=True)))
        return found

    def apply(self, model: nn.Module, graph: Graph, kept: Mapping[str, Kept]) -> None:
        """Crop the model in place."""
        crop(model, self.crops(graph, kept))


def _along(taps: Margin) -> int:
    return next(dim for dim, m in enumerate(taps) if m)
