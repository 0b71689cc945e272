"""The model as if a plan were applied: sizes by arithmetic, the module itself only when asked."""

# A protocol is asked for, none is made.
# mypy: disable-error-code="type-abstract"

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.core.layers import Chain, Layer, Pass, Traffic, Value
from penjing.core.plan import Plan
from penjing.core.protocols import Cropping, Factoring, Quantizing, Zeroing
from penjing.core.units import Ints, Kept, is_gone
from penjing.graph.blocks import lost, removed
from penjing.graph.changes import changes
from penjing.graph.folds import folded, parameters
from penjing.graph.graph import Graph
from penjing.graph.kernels import cropped, inner
from penjing.graph.surgery import what_stays

Part = TypeVar("Part")

MOST = 50_000
"""Parts that a graph remembers before it forgets all."""


@dataclass(frozen=True, eq=False)
class Draft:
    """A graph and a plan; ``made`` makes the module when a cost must run it, and ``uncut`` is the one without the plan.

    One that is not to be run needs no ``uncut``.
    """

    graph: Graph
    plan: Plan
    made: Callable[[], nn.Module]
    uncut: nn.Module | None = None

    @cached_property
    def gone(self) -> NDArray[np.bool_]:
        """Whether each unit of the graph is removed."""
        return self.graph.gone(self.plan.of_rewrite("channels"))

    @cached_property
    def _kept(self) -> dict[str, bytes]:
        """The choice at each site, to compare by."""
        return {site: kept.tobytes() for site, kept in self.plan.of_rewrite("channels").items()}

    def _remembered(self, part: Any, units: Callable[[], Iterable[Ints]], make: Callable[[], Part]) -> Part:
        """Return what is left of a part of the graph that has these units, worked out once for all plans.

        Allocators price thousands of plans that differ at one site.
        """
        memory = self.graph.memory
        if part not in memory:
            memory[part] = self.graph.sites_with(units())
        key = (part, tuple(map(self._kept.get, memory[part])))
        if key not in memory:
            if len(memory) > MOST:
                memory.clear()
                memory[part] = self.graph.sites_with(units())
            memory[key] = make()
        found: Part = memory[key]
        return found

    @cached_property
    def without(self) -> frozenset[str]:
        """The residual blocks that are left out."""
        return removed(self.graph, self.plan)

    @cached_property
    def lost(self) -> frozenset[str]:
        """The parameters and buffers that only such blocks hold."""
        return lost(self.graph, self.without)

    @cached_property
    def _crops(self) -> dict[str, tuple[int, ...]]:
        """The taps that go at both ends of kernels, by weight."""
        found: dict[str, tuple[int, ...]] = {}
        for change, kept in changes(self.plan, Cropping):
            found |= change.crops(self.graph, kept)
        return found

    @cached_property
    def _skipped(self) -> frozenset[int]:
        """The positions in the program of what is left out."""
        visits = (visit for name in self.without for visit in self.graph.blocks[name].visits)
        return frozenset(position for visit in visits for position in visit.inside)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that remain, each stage of a chain one of them."""
        whole = self._uncut.items()
        return tuple(self._rounded(i, one) for i, layer in whole for one in self._stages(i, layer))

    @cached_property
    def _bits(self) -> dict[str, tuple[Quantizing, Kept]]:
        """The bits that layers keep, and what rounds them, by the name of the layer."""
        return {
            site.rpartition("/")[0]: (change, bits)
            for change, kept in changes(self.plan, Quantizing)
            for site, bits in kept.items()
        }

    def _rounded(self, i: int, layer: Layer) -> Layer:
        """Return a layer, or one of the chain in the place of the layer at this position, with its bits."""
        change, bits = self._bits.get(self.graph.layers[i].name, (None, None))
        return layer if change is None or bits is None else change.rounded(layer, bits)

    def _stages(self, i: int, layer: Layer) -> tuple[Layer, ...]:
        if i in self._within:
            path = self._within[i]
            return (self.folds[path],) if i == self.graph.folds[path][0] else ()
        return self._chains[i].layers if i in self._chains else (self._dense(layer),)

    @cached_property
    def folds(self) -> Mapping[str, Layer]:
        """The layers that take the place of chains that no longer pay, by the names of these."""
        found: dict[str, Layer] = {}
        for path, places in self.graph.folds.items():
            if all(i in self._uncut and i not in self._chains for i in places):
                whole = [self.graph.layers[i] for i in places]
                units = [units for stage in whole for units in (stage.in_units, stage.out_units)]
                make = partial(folded, self.graph, path, [self._uncut[i] for i in places])
                one = make() if self._crops else self._remembered(("fold", path), partial(list, units), make)
                if one is not None:
                    found[path] = one
        return found

    @cached_property
    def _within(self) -> dict[int, str]:
        """The positions of layers whose chain becomes one layer, and its name."""
        return {i: path for path in self.folds for i in self.graph.folds[path]}

    @cached_property
    def _uncut(self) -> dict[int, Layer]:
        """The layers that remain, before any becomes a chain and zeros are counted, by their position in the graph."""
        lost = {i for name in self.without for i in self.graph.blocks[name].layers}
        both = enumerate(zip(self.graph.layers, self.graph.spans, strict=True))
        return {i: self._left(i, layer, spans) for i, (layer, spans) in both if i not in lost}

    @cached_property
    def _chains(self) -> dict[int, Chain]:
        """The chains that take the place of layers, by the position of the layer in the graph."""
        found: dict[int, Chain] = {}
        for change, kept in changes(self.plan, Factoring):
            found |= change.chains(self.graph, kept, self._uncut)
        return found

    def _left(self, i: int, layer: Layer, spans: tuple[Ints | None, ...]) -> Layer:
        units = partial(_units_of, layer, spans)
        left = self._remembered(("layer", i), units, partial(self._shrunk, layer, spans))
        return cropped(left, self._crops[layer.weight]) if layer.weight in self._crops else left

    def _dense(self, layer: Layer) -> Layer:
        """Return the layer with the share of its weights that are not zero."""
        whole = layer.weight not in self.graph.zeros and self.plan.rewrites() in ([], ["channels"])
        if whole or layer.weight not in self._zeros:
            return layer
        return replace(layer, density=1.0 - float(self._zeros[layer.weight].double().mean()))

    def _shrunk(self, layer: Layer, spans: tuple[Ints | None, ...]) -> Layer:
        small = layer.shrunk(self.gone)
        if all(units is None for units in spans):
            return small
        lost = [0 if units is None else int(is_gone(units, self.gone).sum()) for units in spans]
        sizes = tuple(n - k for n, k in zip(layer.in_size, lost, strict=True))
        return replace(small, in_size=sizes, out_size=sizes)

    @cached_property
    def passes(self) -> tuple[Traffic, ...]:
        """What is left of the operators without weights, and those within chains."""
        left = [
            self._remembered(("pass", i), partial(_units_moved, one), partial(self._traffic, one))
            for i, one in enumerate(self.graph.passes)
            if one.writes.born not in self._skipped
        ]
        return (*left, *(one for chain in self._chains.values() for one in chain.passes))

    def _traffic(self, one: Pass) -> Traffic:
        read, written = sum(value.elements(self.gone) for value in one.reads), one.writes.elements(self.gone)
        operations = 0 if one.kind == "move" else written * one.window if one.window else read
        return Traffic(one.name, one.kind, one.operator, read, written, operations)

    def _elements(self, name: str, shape: tuple[int, ...]) -> int:
        """How many elements of a parameter or buffer are left."""
        axes = self.graph.axes_of.get(name, ())

        def left() -> int:
            sizes = list(shape)
            for axis in axes:
                sizes[axis.axis] -= int(is_gone(axis.units, self.gone).sum()) // axis.groups
            return math.prod(sizes)

        whole = self._remembered(("tensor", name), lambda: [axis.units for axis in axes], left)
        taps = [k - 2 * m for k, m in zip(shape[2:], self._crops.get(name, ()), strict=False)]
        return whole // math.prod(shape[2:]) * math.prod(taps) if taps else whole

    @cached_property
    def parameters(self) -> int:
        """How many parameters are left."""
        more = (sum(one.weights for one in chain.layers) - self._uncut[i].weights for i, chain in self._chains.items())
        folds = sum(map(parameters, self.folds.values())) - sum(parameters(self._uncut[i]) for i in self._within)
        return self._left_of(self.graph.shapes) + sum(more) + folds

    def _left_of(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        return sum(self._elements(name, shape) for name, shape in shapes.items() if name not in self.lost)

    @cached_property
    def _zeros(self) -> dict[str, Tensor]:
        """Where what is left of parameters is zero, before or by the plan; of those that are zero anywhere."""
        zeros = dict(self.graph.zeros)
        for change, kept in changes(self.plan, Zeroing):
            made = change.zeros(self.graph, kept)
            zeros |= {name: zeros[name] | mask if name in zeros else mask for name, mask in made.items()}
        replaced = {self._uncut[i].weight for i in self._chains}
        replaced |= {name for i in self._within for name in (self._uncut[i].weight, self._uncut[i].bias) if name}
        zeros = {name: zero for name, zero in zeros.items() if name not in self.lost and name not in replaced}
        for name, margin in self._crops.items():
            if name in zeros:
                zeros[name] = inner(zeros[name], margin)
        for axis in self.graph.axes:
            if axis.tensor in zeros:
                zeros[axis.tensor] = what_stays(zeros[axis.tensor], axis, self.gone)
        return zeros

    @cached_property
    def nonzero(self) -> int:
        """How many parameters are left that are not zero, neither before nor by the plan."""
        return self.parameters - sum(int(zero.sum()) for zero in self._zeros.values())

    @cached_property
    def buffers(self) -> int:
        """How many elements the buffers have that are left."""
        return self._left_of(self.graph.buffer_shapes) + sum(chain.buffers for chain in self._chains.values())

    @cached_property
    def peak_elements(self) -> int:
        """The largest number of activation elements of one sample alive at once."""
        steps: dict[int, int] = {}
        needed = self._needed()
        ends = {at[0]: at[-1] for path in self.folds for at in [self._positions(path)]}
        inner = {n for first, last in ends.items() for n in range(first, last)}
        for i, value in enumerate(self.graph.values):
            if value.born in self._skipped or value.born in inner:
                continue
            size = self._remembered(("value", i), partial(_units_in, value), partial(value.elements, self.gone))
            dies = max(value.dies, needed.get(value.born, 0), ends.get(value.dies, 0))
            steps[value.born] = steps.get(value.born, 0) + size
            steps[dies + 1] = steps.get(dies + 1, 0) - size
        alive = dict(zip(sorted(steps), np.cumsum([steps[k] for k in sorted(steps)]).tolist(), strict=True))
        for i, chain in self._chains.items():
            born = self.graph.positions[self.graph.nodes[i]]
            alive[born] = alive.get(born, 0) + _between(chain.layers)
        return max(alive.values(), default=0)

    def _positions(self, path: str) -> list[int]:
        """Return where in the program the stages of a chain run."""
        return [self.graph.positions[self.graph.nodes[i]] for i in self.graph.folds[path]]

    def _needed(self) -> dict[int, int]:
        """Return until when what left-out blocks hand on is needed, by the position where it is made."""
        visits = [visit for name in self.without for visit in self.graph.blocks[name].visits]
        origin: dict[int, int] = {}
        needed: dict[int, int] = {}
        for visit in sorted(visits, key=lambda visit: min(visit.inside)):
            source = origin.get(visit.source, visit.source)
            origin |= dict.fromkeys(visit.inside, source)
            needed[source] = max(needed.get(source, 0), visit.until)
        return needed

    @property
    def example(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The input the graph was traced with."""
        return self.graph.example

    def model(self) -> nn.Module:
        """Build the module."""
        return self.made()

    def whole(self) -> nn.Module:
        """Return the module without the plan.

        Raises: PlanError where the draft was made without it.
        """
        if self.uncut is None:
            raise PlanError("This draft tells what a plan costs and knows no network without it; give it as uncut.")
        return self.uncut


def _between(chain: Sequence[Layer]) -> int:
    """Return by how much a stage's input and output together exceed what the layer itself reads and writes."""
    read = [one.in_channels * math.prod(one.in_size) for one in chain]
    written = [one.out_channels * math.prod(one.out_size) for one in chain]
    return max(0, max(map(sum, zip(read, written, strict=True))) - read[0] - written[-1])


def _units_of(layer: Layer, spans: tuple[Ints | None, ...]) -> Iterable[Ints]:
    return [layer.in_units, layer.out_units, *(units for units in spans if units is not None)]


def _units_moved(one: Pass) -> Iterable[Ints]:
    return [units for value in (*one.reads, one.writes) for units in value.units]


def _units_in(value: Value) -> Iterable[Ints]:
    return value.units
