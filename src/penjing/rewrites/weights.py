"""Set single weights to zero (unstructured sparsity): smaller when packed, not faster on a dense engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from penjing.core.registry import register
from penjing.core.sites import Site, Slot
from penjing.core.units import Kept
from penjing.graph.graph import Graph


@register("rewrite")
@dataclass(frozen=True)
class weights:  # noqa: N801  (registered under its own name)
    """Zero single weights of convolutions and linear layers; biases and norms stay.

    Shapes do not change: report the result as sparse weights, never as removed parameters. ``hold_zeros`` keeps the
    pattern while fine-tuning.
    """

    def find(self, graph: Graph) -> list[Site]:
        """Return one site a weight tensor, a unit a weight."""
        sites = []
        for name in dict.fromkeys(layer.weight for layer in graph.layers if layer.weight):
            size = int(np.prod(graph.shapes[name]))
            every = np.arange(size)
            sites.append(Site(name, "weights", size, (Slot(name, -1, "out", every, every),), np.arange(0)))
        return sites

    def zeros(self, graph: Graph, kept: Mapping[str, Kept]) -> dict[str, Tensor]:
        """Return where the weights are that are not kept."""
        masks = {name: torch.ones(graph.shapes[name], dtype=torch.bool) for name in kept}
        for name, units in kept.items():
            masks[name].view(-1)[torch.from_numpy(units)] = False
        return masks

    @torch.no_grad()
    def apply(self, model: nn.Module, graph: Graph, kept: Mapping[str, Kept]) -> None:
        """Zero, in place, the weights that are not kept."""
        for name, mask in self.zeros(graph, kept).items():
            weight = model.get_parameter(name)
            weight.masked_fill_(mask.to(weight.device), 0)
