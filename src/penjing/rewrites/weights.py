"""Set single weights to zero (unstructured sparsity): smaller when packed, not faster on a dense engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from penjing.core.registry import register
from penjing.core.types import Kept, Site, Slot
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

    def apply(self, model: nn.Module, graph: Graph, kept: Mapping[str, Kept]) -> None:
        """Zero, in place, the weights that are not kept."""
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, units in kept.items():
                weight = parameters[name]
                mask = torch.zeros(weight.numel(), dtype=weight.dtype, device=weight.device)
                mask[torch.from_numpy(units).to(weight.device)] = 1
                weight.mul_(mask.view_as(weight))
