"""Which sites go with another: the channels in a block go with the block, outer taps with those further in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from penjing.core.protocols import Removing, Rewrite
from penjing.core.sites import Site
from penjing.graph.blocks import lies_in
from penjing.graph.graph import Graph


def nested(graph: Graph, sites: Sequence[Site], changes: Mapping[str, Rewrite]) -> list[Site]:
    """Return the sites, each ``within`` the one that takes all of it out, of several the one that takes out least.

    What only several blocks hold together lies within none of them. ``changes`` are the rewrites by name. A site that
    says itself which it lies within stays there where that one is among the sites.
    """
    names = {site.name for site in sites}
    blocks: dict[str, frozenset[str]] = {}
    for site in sites:
        change = changes[site.rewrite]
        if site.least == 0 and isinstance(change, Removing):
            blocks[site.name] = frozenset(change.removes(graph, {site.name: np.arange(0)}))

    def outer(site: Site) -> str:
        if site.within in names:
            return site.within
        mine = blocks.get(site.name)
        around = (name for name, gone in blocks.items() if (mine < gone if mine else lies_in(graph, site, gone)))
        return min(around, key=lambda name: len(blocks[name]), default="")

    return [replace(site, within=outer(site)) for site in sites]
