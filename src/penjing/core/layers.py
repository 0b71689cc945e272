"""What the graph saw run: layers, activations, and the operators between them that have no weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from penjing.core.units import Ints, is_gone


@dataclass(frozen=True, eq=False)
class Layer:
    """One convolution or linear layer as the graph saw it run; a module called twice gives two layers.

    ``in_units`` and ``out_units`` hold the graph-wide unit of each channel, -1 where the channel has none.
    ``in_channels`` counts what the operator reads (of a linear layer: features). ``positions`` is how many output
    positions one sample has (height times width of a convolution). ``follows`` says that ``groups`` shrinks with
    the channels (depthwise) instead of staying fixed. ``bits`` are those of one of its weights, ``input_bits`` those
    of what it reads; 32 where it is not rounded. ``stored_bits`` are those of all weights with their tables, 0 where
    they are floats. ``inner`` says that the next stage of its chain alone reads what it writes.
    """

    name: str
    kind: str
    weight: str
    bias: str | None
    in_units: Ints
    out_units: Ints
    in_channels: int
    out_channels: int
    groups: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    in_size: tuple[int, ...]
    out_size: tuple[int, ...]
    follows: bool = False
    density: float = 1.0
    bits: int = 32
    input_bits: int = 32
    stored_bits: int = 0
    inner: bool = False

    @property
    def positions(self) -> int:
        """How many times one sample applies the kernel."""
        return math.prod(self.in_size if self.transposed else self.out_size)

    @property
    def weights(self) -> int:
        """How many weights the layer has; biases are not counted."""
        return self.in_channels // self.groups * self.out_channels * math.prod(self.kernel)

    @property
    def weight_bytes(self) -> float:
        """Bytes that the weights take up when they are stored."""
        return (self.stored_bits or 32 * self.weights) / 8

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample; biases are not counted."""
        return self.positions * self.weights

    def shrunk(self, gone: NDArray[np.bool_]) -> Layer:
        """Return the layer without the units for which ``gone[unit]`` is true."""
        ins = self.in_units[~is_gone(self.in_units, gone)]
        outs = self.out_units[~is_gone(self.out_units, gone)]
        groups = self.groups * len(ins) // self.in_channels if self.follows else self.groups
        return replace(self, in_units=ins, out_units=outs, in_channels=len(ins), out_channels=len(outs), groups=groups)


@dataclass(frozen=True, eq=False)
class Value:
    """One activation of one sample: the units along each labelled dimension, and how long it is alive.

    ``fixed`` is the product of the dimensions without units; ``born`` and ``dies`` are positions in the order of
    execution.
    """

    fixed: int
    units: tuple[Ints, ...]
    born: int
    dies: int

    def elements(self, gone: NDArray[np.bool_]) -> int:
        """How many elements are left when these units go."""
        return self.fixed * math.prod(int((~is_gone(units, gone)).sum()) for units in self.units)


@dataclass(frozen=True, eq=False)
class Pass:
    """One run of an operator without weights over whole activations: a pooling, an addition, a concatenation.

    What is folded into the layer before it (batch norm behind a convolution, an activation function) is no pass.
    ``kind`` is ``"pool"``, ``"elementwise"`` or ``"move"``; ``operator`` its ATen name; ``window`` how many elements
    make one of the output, 0 where all of the input do.
    """

    name: str
    kind: str
    operator: str
    window: int
    reads: tuple[Value, ...]
    writes: Value


@dataclass(frozen=True)
class Traffic:
    """What is left of a pass under a plan: elements of one sample, and operations on them.

    ``layer`` has the shape of a pick or shift in a chain, by which runtimes time it.
    """

    name: str
    kind: str
    operator: str
    in_elements: int
    out_elements: int
    operations: int
    layer: Layer | None = field(default=None, compare=False)


@dataclass(frozen=True, eq=False)
class Chain:
    """Layers with nothing between them but ``passes`` that move values; buffers beside them have so many elements."""

    layers: tuple[Layer, ...]
    buffers: int = 0
    passes: tuple[Traffic, ...] = ()
