"""Which sites and layers a user's patterns mean.

Before a colon stands a kind: ``conv:*`` and ``linear:head*`` are sites that such layers write, ``rank:*`` those between
the layers of a chain, as a factorisation makes them. The ranks, bits and options of a layer, ``conv1/rank``,
``conv1/bits`` and ``conv1/option``, go by the layer's name as well.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatch

from penjing.core.layers import Layer
from penjing.core.sites import Site
from penjing.graph.graph import Graph


def chosen(graph: Graph, sites: Sequence[Site], include: Sequence[str], exclude: Sequence[str]) -> list[Site]:
    """Return the sites that a pattern of ``include`` means and none of ``exclude``."""
    kinds = {layer.weight: layer.kind for layer in graph.layers if layer.weight}

    def names(site: Site) -> set[str]:
        written = {slot.tensor for slot in site.slots_with("out")}
        prefixes = {kinds[tensor] for tensor in written if tensor in kinds}
        if written and written <= graph.ranks:
            prefixes.add("rank")
        own = {site.name, site.name.rpartition("/")[0]} if site.kind in ("ranks", "bits", "options") else {site.name}
        return own | {f"{kind}:{name}" for kind in prefixes for name in own}

    return [site for site in sites if matches(names(site), include, exclude)]


def takes(layer: Layer, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Tell whether patterns mean a layer."""
    return matches((layer.name, f"{layer.kind}:{layer.name}"), include, exclude)


def matches(names: Collection[str], include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Tell whether one of a thing's names matches a pattern of ``include``, and none any of ``exclude``."""
    mine, others = (any(_means(one, name) for name in names for one in patterns) for patterns in (include, exclude))
    return mine and not others


def _means(pattern: str, name: str) -> bool:
    """Tell whether a pattern means a name; one without a kind means names without."""
    return fnmatch(name, pattern) and (":" in pattern or ":" not in name)
