"""Remove whole channels, physically, with everything that is coupled to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from penjing.core.registry import register
from penjing.core.sites import Site
from penjing.core.units import Kept
from penjing.graph.graph import Graph
from penjing.graph.surgery import cut


@register("rewrite")
@dataclass(frozen=True)
class channels:  # noqa: N801  (registered under its own name)
    """Remove channels: filters, what is tied to them, and what reads them.

    Coupling is found on the graph (``penjing.graph``); every cut is proved against the zeroed original.
    """

    def find(self, graph: Graph) -> list[Site]:
        """Return the channel sites of the graph that have more than one unit."""
        return [site for site in graph.sites if site.size > 1]

    def apply(self, model: nn.Module, graph: Graph, kept: Mapping[str, Kept]) -> None:
        """Cut the model in place."""
        cut(model, graph, kept)
