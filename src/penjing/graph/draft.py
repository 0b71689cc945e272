"""The model as if a plan were applied: sizes by arithmetic, the module itself only when asked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from penjing.core.protocols import Zeroing
from penjing.core.registry import build
from penjing.core.types import Ints, Layer, Pass, Plan, Traffic, is_gone
from penjing.graph.graph import Graph
from penjing.graph.surgery import what_stays


@dataclass(frozen=True, eq=False)
class Draft:
    """A graph and a plan; ``made`` makes the module when a cost must run it."""

    graph: Graph
    plan: Plan
    made: Callable[[], nn.Module]

    @cached_property
    def gone(self) -> NDArray[np.bool_]:
        """Whether each unit of the graph is removed."""
        return self.graph.gone(self.plan.of_rewrite("channels"))

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that remain."""
        return tuple(
            self._shrunk(layer, spans) for layer, spans in zip(self.graph.layers, self.graph.spans, strict=True)
        )

    def _shrunk(self, layer: Layer, spans: tuple[Ints | None, ...]) -> Layer:
        small = layer.shrunk(self.gone)
        if layer.weight in self._zeros:
            small = replace(small, density=1.0 - float(self._zeros[layer.weight].double().mean()))
        if all(units is None for units in spans):
            return small
        lost = [0 if units is None else int(is_gone(units, self.gone).sum()) for units in spans]
        sizes = tuple(n - k for n, k in zip(layer.in_size, lost, strict=True))
        return replace(small, in_size=sizes, out_size=sizes)

    @cached_property
    def passes(self) -> tuple[Traffic, ...]:
        """What is left of the operators without weights."""
        return tuple(self._traffic(one) for one in self.graph.passes)

    def _traffic(self, one: Pass) -> Traffic:
        read, written = sum(value.elements(self.gone) for value in one.reads), one.writes.elements(self.gone)
        operations = 0 if one.kind == "move" else written * one.window if one.window else read
        return Traffic(one.name, one.kind, one.operator, read, written, operations)

    @cached_property
    def _shapes(self) -> dict[str, list[int]]:
        """The shapes that are left of parameters and buffers."""
        shapes = {name: list(shape) for name, shape in (*self.graph.shapes.items(), *self.graph.buffer_shapes.items())}
        for axis in self.graph.axes:
            shapes[axis.tensor][axis.axis] -= int(is_gone(axis.units, self.gone).sum()) // axis.groups
        return shapes

    @cached_property
    def parameters(self) -> int:
        """How many parameters are left."""
        return sum(math.prod(self._shapes[name]) for name in self.graph.shapes)

    @cached_property
    def _zeros(self) -> dict[str, Tensor]:
        """Where what is left of parameters is zero, before or by the plan; of those that are zero anywhere."""
        zeros = dict(self.graph.zeros)
        for rewrite in self.plan.rewrites():
            change = build("rewrite", rewrite)
            if isinstance(change, Zeroing):
                made = change.zeros(self.graph, self.plan.of_rewrite(rewrite))
                zeros |= {name: zeros[name] | mask if name in zeros else mask for name, mask in made.items()}
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
        return sum(math.prod(self._shapes[name]) for name in self.graph.buffer_shapes)

    @cached_property
    def peak_elements(self) -> int:
        """The largest number of activation elements of one sample alive at once."""
        steps: dict[int, int] = {}
        for value in self.graph.values:
            size = value.elements(self.gone)
            steps[value.born] = steps.get(value.born, 0) + size
            steps[value.dies + 1] = steps.get(value.dies + 1, 0) - size
        alive = np.cumsum([steps[k] for k in sorted(steps)])
        return int(alive.max()) if alive.size else 0

    @property
    def example(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The input the graph was traced with."""
        return self.graph.example

    def model(self) -> nn.Module:
        """Build the module."""
        return self.made()
