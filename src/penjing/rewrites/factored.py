"""Put a chain of smaller layers in a layer's place: what every factorisation of ``penjing.factors`` does to a network.

A unit is a rank. A site that is kept whole leaves its layer as it is; of a layer that loses ranks, what stands there
after the channels are cut is factored anew, so that the ranks are the best of what is left.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

import numpy as np
from torch import Tensor, nn

from penjing.core.layers import Chain, Layer, Traffic
from penjing.core.sites import Site, Slot
from penjing.core.units import Kept
from penjing.factors.base import Factorization
from penjing.factors.layer import LayerSpec, read, sides
from penjing.factors.side_by_side import side_by_side
from penjing.factors.spectra import Axis
from penjing.graph.chains import as_layer, as_left, put_in, size_read
from penjing.graph.graph import Graph

Made: TypeAlias = tuple[str, Factorization, tuple[int, ...]]
"""What messages call a layer, how it is factored, and the ranks."""


@dataclass(frozen=True)
class Factored:
    """A rewrite of one factorisation; a site is an axis of ranks, called after its layer: ``conv1/rank``.

    Layers are torch's own, run once. Those whose chain costs fewer MACs and parameters at no rank have no site; nor has
    a layer a chain that does not pay once its channels are cut: it stays whole.
    """

    by: ClassVar[Factorization]
    drawn: ClassVar[bool] = False
    """Whether the numbers of a chain are drawn anew, and hold nothing of the layer's."""
    shares: ClassVar[bool] = True
    """Whether scores are shares of what a layer holds; else they tell how far the answers move."""

    def of(self, spec: LayerSpec, ranks: Mapping[str, int]) -> tuple[Factorization, tuple[int, ...]]:
        """Return how a layer is factored of whose axes these lose ranks, and to which."""
        return self.by, tuple((self._whole(spec) | dict(ranks)).values())

    def refuses(self, spec: LayerSpec) -> str:
        """Return why a layer cannot be factored so, as the end of a sentence, or nothing where it can."""
        return self.by.refuses(spec)

    def spectra(self, model: nn.Module, path: str, name: str) -> tuple[Axis, ...]:
        """Return what each rank of a layer holds, one entry an axis; ``name`` is what messages call the layer."""
        return self.by.spectra(model.get_submodule(path), name)

    def look(self, model: nn.Module) -> None:
        """See what layers tell together, before spectra of single ones are asked side by side."""

    def needs(self, spec: LayerSpec) -> int:
        """Return the memory that the spectra of a layer take at most.

        Units: bytes.
        """
        return self.by.memory(spec)

    def put(self, model: nn.Module, layers: Mapping[str, Made]) -> None:
        """Put chains, in place, where the layers of these paths were."""
        olds = {path: model.get_submodule(path) for path in layers}

        def split(path: str) -> nn.Sequential:
            name, factorization, ranks = layers[path]
            return factorization.split(olds[path], ranks, name)

        needs = [by.memory(read(olds[path], name), ranks) for path, (name, by, ranks) in layers.items()]
        chains = side_by_side(split, list(layers), needs, "factorising")
        for path, chain in zip(layers, chains, strict=True):
            put_in(model, path, chain)

    def width(self, spec: LayerSpec) -> int:
        """Return how many channels of a stage a rank spans."""
        return 1

    def beside(self, stages: Mapping[str, LayerSpec]) -> dict[str, str]:
        """Return what stages that read the same, side by side, are called in the network, by their names."""
        return {}

    def find(self, graph: Graph) -> list[Site]:
        """Return the axes of ranks of the layers that may be factored, and at some rank pay."""
        return [site for layer in graph.layers for site in self._sites(layer, graph.modules.get(layer.weight))]

    def _sites(self, layer: Layer, spec: LayerSpec | None) -> Iterator[Site]:
        if spec is None or self.refuses(spec):
            return
        none = np.arange(0)
        for axis, full in zip(self.by.axes, self.by.full(spec), strict=True):
            most = self._most(axis, full, spec, size_read(layer, spec))
            if most:
                slot = Slot(layer.weight, -1, "out", none, none)
                width = self.width(spec)
                yield Site(f"{layer.name}/{axis}", "ranks", full, (slot,), none, most=most, width=width)

    def _most(self, axis: str, full: int, spec: LayerSpec, size: Sequence[int]) -> int:
        """Return the most ranks along one axis at which the chain pays while the others keep theirs; 0 for none."""
        low, high = 0, full - 1
        while low < high:
            middle = (low + high + 1) // 2
            pays = self.pays(spec, self._whole(spec) | {axis: middle}, size)
            low, high = (middle, high) if pays else (low, middle - 1)
        return low

    def _whole(self, spec: LayerSpec) -> dict[str, int]:
        return dict(zip(self.by.axes, self.by.full(spec), strict=True))

    def pays(self, spec: LayerSpec, ranks: Mapping[str, int], size: Sequence[int]) -> bool:
        """Tell whether a chain of these ranks has fewer MACs and parameters than the layer, on an input so large."""
        whole = self._whole(spec)
        fewer = {axis: n for axis, n in ranks.items() if n < whole[axis]}
        if not fewer:
            return False
        factorization, numbers = self.of(spec, fewer)
        return factorization.pays(spec, numbers, size)

    def scores(self, model: nn.Module, site: Site) -> Tensor:
        """Return the share of what the layer holds that each rank does."""
        weight = site.slots[0].tensor
        path, axis = weight.rpartition(".")[0], site.name.rpartition("/")[2]
        spectra = self.spectra(model, path, path)
        energies = next(one.energies for one in spectra if one.name == axis)
        return energies / energies.sum().clamp_min(1e-300)

    def chains(self, graph: Graph, kept: Mapping[str, Kept], layers: Mapping[int, Layer]) -> dict[int, Chain]:
        """Return the chains that take the place of layers, as the rest of a plan leaves them, by their position."""
        ranks, found = _by_layer(kept), dict[int, Chain]()
        for i, layer in layers.items():
            if layer.name in ranks:
                spec = as_left(graph.modules[layer.weight], layer)
                if stages := self._stages(spec, ranks[layer.name], size_read(layer, spec)):
                    found[i] = chain_of(layer, size_read(layer, spec), stages, self.beside(stages))
        return found

    def _chosen(
        self, spec: LayerSpec, ranks: Mapping[str, int], size: Sequence[int]
    ) -> tuple[Factorization, tuple[int, ...]] | None:
        """Return how a layer of this shape is factored; None where no chain pays."""
        if self.refuses(spec):
            return None
        whole = self._whole(spec)
        fewer = {axis: n for axis, n in ranks.items() if n < whole[axis]}
        return self.of(spec, fewer) if self.pays(spec, fewer, size) else None

    def _stages(self, spec: LayerSpec, ranks: Mapping[str, int], size: Sequence[int]) -> dict[str, LayerSpec]:
        chosen = self._chosen(spec, ranks, size)
        return {} if chosen is None else chosen[0].stages(spec, chosen[1])

    def apply(self, model: nn.Module, graph: Graph, kept: Mapping[str, Kept]) -> None:
        """Put chains, in place, where the layers were."""
        layers, made = {layer.name: layer for layer in graph.layers}, dict[str, Made]()
        for name, ranks in _by_layer(kept).items():
            path = layers[name].weight.rpartition(".")[0]
            spec = read(model.get_submodule(path), name)
            chosen = self._chosen(spec, ranks, size_read(layers[name], spec))
            if chosen is not None:
                made[path] = (name, *chosen)
        self.put(model, made)


def _by_layer(kept: Mapping[str, Kept]) -> dict[str, dict[str, int]]:
    """Return the numbers of ranks that are kept by layer and axis."""
    found: dict[str, dict[str, int]] = {}
    for site, units in kept.items():
        name, _, axis = site.rpartition("/")
        found.setdefault(name, {})[axis] = len(units)
    return found


def chain_of(layer: Layer, size: tuple[int, ...], stages: Mapping[str, LayerSpec], beside: Mapping[str, str]) -> Chain:
    """Return the stages as layers of the graph, in which ranks are no units.

    One that picks channels is a buffer, and, like one that shifts them, a pass over what it moves. Those ``beside`` one
    another read the same, and what is theirs of the layer's own units only the weights tell.
    """
    found, passes = list[Layer](), list[Traffic]()
    ins, buffers = layer.in_units, 0
    last = [name for name, stage in stages.items() if not stage.moves][-1]
    todo = list(stages.items())
    while todo:
        group = [todo.pop(0)]
        while group[0][0] in beside and todo and todo[0][0] in beside:
            group.append(todo.pop(0))
        (name, stage), read = group[0], size
        size = tuple(stage.out_size(read))
        wide = sum(one.out_channels for _, one in group)
        if stage.moves:
            buffers += stage.out_channels if stage.kind == "pick" else 0
            passes += _moved(_as_moved(layer, name, stage, read), stage, read)
        outs = layer.out_units if name == last else np.full(wide, -1)
        for called, one in group:
            if not one.moves:
                own = outs if len(group) == 1 else np.full(one.out_channels, -1)
                made = as_layer(layer, beside.get(called, called), one, read, ins, own)
                found.append(replace(made, inner=last not in dict(group)))
        ins = np.full(wide, -1)
        if len(group) > 1:
            values = wide * math.prod(size)
            passes.append(Traffic(f"{layer.name}.{beside[name].rpartition('.')[0]}", "move", "cat", values, values, 0))
    return Chain(tuple(found), buffers, tuple(passes))


def _as_moved(layer: Layer, name: str, stage: LayerSpec, size: Sequence[int]) -> Layer:
    """Return a stage without weights as a layer: a shift has the geometry of a convolution, and a pick none."""
    none = np.full(stage.in_channels, -1), np.full(stage.out_channels, -1)
    return replace(as_layer(layer, name, stage, size, *none), kind=stage.kind)


def _moved(layer: Layer, stage: LayerSpec, size: Sequence[int]) -> list[Traffic]:
    """Return what moves values in a stage without weights."""
    name = layer.name
    read, written = math.prod(size), stage.out_channels * math.prod(stage.out_size(size))
    if stage.kind == "pick":
        return [Traffic(name, "move", "index_select", stage.in_channels * read, written, 0, layer)]
    pads = [before + after for before, after in sides(stage)]
    padded = stage.in_channels * math.prod(n + more for n, more in zip(size, pads, strict=True))
    around = [Traffic(f"{name}.pad", "move", "pad", stage.in_channels * read, padded, 0)] if any(pads) else []
    return [*around, Traffic(name, "move", "cat", written, written, 0, layer)]
