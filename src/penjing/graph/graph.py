"""The Graph: layers, sites, and the notes on what could not be freed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from penjing.core.errors import PlanError, did_you_mean
from penjing.core.types import Ints, Kept, Layer, Note, Site, Value


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of a parameter or buffer, and the unit of each index along it (-1: none)."""

    tensor: str
    axis: int
    role: str
    units: Ints


@dataclass(frozen=True, eq=False)
class Read:
    """Where a node of the exported program sums over channels, and the unit of each."""

    node: str
    operand: int
    dim: int
    units: Ints


@dataclass(frozen=True, eq=False)
class Gather:
    """A buffer of positions along a dimension with these units."""

    buffer: str
    units: Ints


@dataclass(frozen=True, eq=False)
class Norm:
    """A normalisation module that states its channel count; a group norm has ``per_group`` channels a group."""

    module: str
    units: Ints
    per_group: int


@dataclass(frozen=True, eq=False)
class Graph:
    """What a network is, as far as removing units from it is concerned.

    ``sites`` are the channel sites; ``free`` and ``total`` count the output channels of all layers that feed another
    layer, so ``free / total`` is the share that may be cut; ``notes`` tell why the rest stays. ``program`` is the
    exported program, kept for the proof; ``example`` the input it was traced with.
    """

    layers: tuple[Layer, ...]
    sites: tuple[Site, ...]
    notes: tuple[Note, ...]
    axes: tuple[Axis, ...]
    reads: tuple[Read, ...]
    gathers: tuple[Gather, ...]
    norms: tuple[Norm, ...]
    values: tuple[Value, ...]
    shapes: Mapping[str, tuple[int, ...]]
    buffers: int
    units: int
    free: int
    total: int
    batch: int
    program: torch.export.ExportedProgram
    example: tuple[tuple[Any, ...], dict[str, Any]]

    @property
    def share_free(self) -> float:
        """The share of output channels that may be cut, 0 to 1."""
        return self.free / self.total if self.total else 0.0

    def site(self, name: str) -> Site:
        """Return the site of this name.

        Raises: PlanError naming the closest known site.
        """
        for site in self.sites:
            if site.name == name:
                return site
        raise PlanError(f"There is no site {name!r}.{did_you_mean(name, (s.name for s in self.sites))}")

    def gone(self, kept: Mapping[str, Kept]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return, for each unit of the graph, whether a choice of kept units by site removes it."""
        gone = np.zeros(max(1, self.units), dtype=np.bool_)
        for name, units in kept.items():
            site = self.site(name)
            gone[site.ids] = True
            gone[site.ids[units]] = False
        return gone

    def layers_reading(self, site: Site) -> list[tuple[int, Layer]]:
        """Return the layers that read any unit of the site, with their position in the order of execution."""
        return [(i, layer) for i, layer in enumerate(self.layers) if np.isin(layer.in_units, site.ids).any()]

    def without_sites(self, names: Iterable[str], why: str) -> Graph:
        """Return the graph with these sites pinned for the reason given."""
        from dataclasses import replace

        pinned = [site for site in self.sites if site.name in set(names)]
        notes = tuple(Note(site.name, site.size, why) for site in pinned)
        return replace(
            self,
            sites=tuple(site for site in self.sites if site not in pinned),
            notes=self.notes + notes,
            free=self.free - sum(site.size for site in pinned),
        )
