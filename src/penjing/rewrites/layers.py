"""Take out whole residual blocks: depth goes, widths stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from penjing.core.registry import register
from penjing.core.sites import Site
from penjing.core.units import Kept
from penjing.graph.blocks import take_out
from penjing.graph.graph import Graph


@register("rewrite")
@dataclass(frozen=True)
class layers:  # noqa: N801  (registered under its own name)
    """Take out residual blocks, physically: the identity takes the place of the module.

    A block may go where it returns what it reads once its residual branch is zero, such as every block of a ResNet
    that changes neither stride nor width. Blocks are found on the graph (``penjing.graph.residual``); what is left is
    proved against the original whose branches are added as zero.
    """

    def find(self, graph: Graph) -> list[Site]:
        """Return one site a block, of one unit that may go."""
        return [Site(name, "layers", 1, (), np.arange(0), least=0, rewrite="layers") for name in graph.blocks]

    def removes(self, graph: Graph, kept: Mapping[str, Kept]) -> set[str]:
        """Return the blocks of which nothing is kept."""
        return {graph.block(name).name for name, units in kept.items() if len(units) == 0}

    def apply(self, model: nn.Module, graph: Graph, kept: Mapping[str, Kept]) -> None:
        """Put the identity, in place, where the blocks were."""
        take_out(model, [graph.block(name).module for name in self.removes(graph, kept)])
