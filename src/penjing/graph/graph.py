"""The Graph: layers, sites, and the notes on what could not be freed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from penjing.core.errors import PlanError, did_you_mean
from penjing.core.layers import Layer, Pass, Value
from penjing.core.sites import Note, Site
from penjing.core.units import Ints, Kept
from penjing.factors.layer import LayerSpec
from penjing.graph.program import Program


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of a parameter or buffer, and the unit of each index along it (-1: none).

    Where ``groups`` exceeds one, the first axis of the tensor falls into so many groups, each with indices of its own
    along this axis: ``units`` holds those of all groups, one after the other, and each loses equally many.
    """

    tensor: str
    axis: int
    role: str
    units: Ints
    groups: int = 1


@dataclass(frozen=True, eq=False)
class Read:
    """Where a node of the program sums over channels, and the unit of each."""

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
class Count:
    """An attribute of a module (``index``: an entry of it) that is ``times`` the number of these units."""

    module: str
    attribute: str
    index: int | None
    units: Ints
    times: int


@dataclass(frozen=True, eq=False)
class Visit:
    """One run of a module in the program: ``inside`` are the positions of its nodes.

    ``source`` is the position of the node whose memory holds what it reads, ``until`` the last position that needs the
    memory of what it returns.
    """

    inside: frozenset[int]
    source: int
    until: int


@dataclass(frozen=True, eq=False)
class Block:
    """A module that returns what it reads once its residual branches are zero, so that it may be left out.

    ``name`` is that of the ``module``, or differs from it where a channel site bears that name. ``branches`` name the
    additions in it and which operand of each is the branch. ``layers`` are positions in ``Graph.layers``.
    """

    name: str
    module: str
    visits: tuple[Visit, ...]
    branches: tuple[tuple[str, int], ...]
    layers: frozenset[int]


@dataclass(frozen=True, eq=False)
class Graph:
    """What a network is, as far as removing units from it is concerned.

    ``layers`` stand in the order of execution, and ``nodes`` are their nodes in the program; ``reading_dims`` and
    ``writing_dims`` say along which dimension of its input and output, counted from the end, each has its channels;
    ``spans`` holds the units along each of the other sizes that it runs over, where these are channels as well (a
    linear layer over positions).

    ``sites`` are the channel sites; ``free`` and ``total`` count the output channels of all layers that feed another
    layer, so ``free / total`` is the share that may be cut; ``notes`` tell why the rest stays. ``written`` names, for
    each layer that makes channels, the unit of each of them. ``shapes`` are those of the parameters. ``passes`` are
    the operators without weights that layers do not take in. ``program`` is the
    program, kept for the proof; ``example`` the input it was traced with. ``zeros`` marks where parameters
    are zero already, of those that are anywhere. ``blocks`` are the residual blocks that may be left out, by name, and
    ``block_notes`` tell why others may not; ``held`` names, for each tensor that lies in blocks alone, those that
    hold it. ``kernels`` says, by weight, how many outer taps of a kernel may be cropped at both ends of each dimension.
    ``modules`` are the shapes of the layers that are modules of torch's own, run once and held in one place,
    by the name of their weight: another module may stand in for them. ``chains`` are the positions of such layers, by
    the module that holds them, that hand on from one to the next with nothing between them; ``folds`` are those in
    whose place a cut puts one layer again where they no longer pay. ``normed`` are the positions of the layers that a
    batch norm alone reads.
    """

    layers: tuple[Layer, ...]
    nodes: tuple[str, ...]
    reading_dims: tuple[int, ...]
    writing_dims: tuple[int, ...]
    spans: tuple[tuple[Ints | None, ...], ...]
    sites: tuple[Site, ...]
    notes: tuple[Note, ...]
    written: tuple[tuple[str, Ints], ...]
    axes: tuple[Axis, ...]
    reads: tuple[Read, ...]
    gathers: tuple[Gather, ...]
    norms: tuple[Norm, ...]
    counts: tuple[Count, ...]
    values: tuple[Value, ...]
    passes: tuple[Pass, ...]
    shapes: Mapping[str, tuple[int, ...]]
    buffer_shapes: Mapping[str, tuple[int, ...]]
    units: int
    free: int
    total: int
    batch: int
    program: Program
    example: tuple[tuple[Any, ...], dict[str, Any]]
    zeros: Mapping[str, torch.Tensor] = field(default_factory=dict)
    blocks: Mapping[str, Block] = field(default_factory=dict)
    block_notes: tuple[Note, ...] = ()
    held: Mapping[str, frozenset[str]] = field(default_factory=dict)
    kernels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    modules: Mapping[str, LayerSpec] = field(default_factory=dict)
    chains: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    folds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    strange: frozenset[str] = frozenset()
    normed: frozenset[int] = frozenset()

    @property
    def share_free(self) -> float:
        """The share of output channels that may be cut, 0 to 1."""
        return self.free / self.total if self.total else 0.0

    @property
    def buffers(self) -> int:
        """How many elements the buffers have."""
        return sum(math.prod(shape) for shape in self.buffer_shapes.values())

    @cached_property
    def ranks(self) -> frozenset[str]:
        """The weights of the layers that write ranks: all of a chain but its last."""
        return self.strange | {self.layers[i].weight for chain in self.chains.values() for i in chain[:-1]}

    @cached_property
    def _by_name(self) -> dict[str, Site]:
        return {site.name: site for site in self.sites}

    def site(self, name: str) -> Site:
        """Return the site of this name.

        Raises: PlanError naming the closest known site.
        """
        if name not in self._by_name:
            raise PlanError(f"There is no site {name!r}.{did_you_mean(name, self._by_name)}")
        return self._by_name[name]

    def block(self, name: str) -> Block:
        """Return the residual block of this name.

        Raises: PlanError naming the closest known block.
        """
        if name not in self.blocks:
            raise PlanError(f"{name} is no block that may be left out of the network.{did_you_mean(name, self.blocks)}")
        return self.blocks[name]

    def gone(self, kept: Mapping[str, Kept]) -> NDArray[np.bool_]:
        """Return, for each unit of the graph, whether a choice of kept units by site removes it."""
        gone = np.zeros(max(1, self.units), dtype=np.bool_)
        for name, units in kept.items():
            site = self.site(name)
            gone[site.ids] = True
            gone[site.ids[units]] = False
        return gone

    @cached_property
    def positions(self) -> dict[str, int]:
        """The position of each node of the program in the order of execution."""
        return {node.name: i for i, node in enumerate(self.program.nodes)}

    @cached_property
    def axes_of(self) -> dict[str, list[Axis]]:
        """The axes of each parameter and buffer that has units."""
        found: dict[str, list[Axis]] = {}
        for axis in self.axes:
            found.setdefault(axis.tensor, []).append(axis)
        return found

    @cached_property
    def memory(self) -> dict[Any, Any]:
        """What drafts have worked out of parts of this graph, for other drafts that change these parts alike."""
        return {}

    @cached_property
    def _site_of(self) -> Ints:
        """The number of each unit's site; -1 for those of none."""
        whose = np.full(max(1, self.units), -1, dtype=np.int64)
        for i, site in enumerate(self.sites):
            whose[site.ids] = i
        return whose

    def sites_with(self, units: Iterable[Ints]) -> tuple[str, ...]:
        """Return the names of the sites that any of these units belong to."""
        found = [self._site_of[one[one >= 0]] for one in units]
        numbers = np.unique(np.concatenate(found)) if found else np.arange(0)
        return tuple(self.sites[i].name for i in numbers.tolist() if i >= 0)

    def layers_reading(self, site: Site) -> list[tuple[int, Layer]]:
        """Return the layers that read any unit of the site, with their position in the order of execution."""
        return [(i, layer) for i, layer in enumerate(self.layers) if np.isin(layer.in_units, site.ids).any()]

    def without_sites(self, names: Iterable[str], why: str, lines: Mapping[str, str] | None = None) -> Graph:
        """Return the graph with these sites pinned for the reason given; ``lines`` are places in the user's code."""
        pinned = [self.site(name) for name in dict.fromkeys(names)]
        gone = {site.name for site in pinned}
        notes = [Note(site.name, self._channels(site), why, (lines or {}).get(site.name, "")) for site in pinned]
        return replace(
            self,
            sites=tuple(site for site in self.sites if site.name not in gone),
            notes=(*self.notes, *notes),
            free=self.free - sum(note.units for note in notes),
        )

    def without_program(self) -> Graph:
        """Return the graph with an empty program: enough to cut and to count, and fit to travel; not to prove."""
        return replace(self, program=Program(torch.fx.GraphModule({}, torch.fx.Graph()), ()))

    def _channels(self, site: Site) -> int:
        """Count the channels that layers write of a site, of which a unit may span several."""
        return sum(int(np.isin(units, site.ids).sum()) for _, units in self.written)
