"""A layer as hardware sees it: one matrix product a group, and the pictures it reads."""

from __future__ import annotations

import math
from typing import NamedTuple

from penjing.core.layers import Layer
from penjing.targets.systolic import Rows, up


class Shape(NamedTuple):
    """The sizes of a layer that its cost depends on, for ``batch`` samples; channels are those of one group.

    ``nonzero`` counts the weights of all groups that are not zero.
    """

    batch: int
    groups: int
    in_channels: int
    out_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    in_size: tuple[int, ...]
    out_size: tuple[int, ...]
    transposed: bool
    nonzero: int

    @classmethod
    def of(cls, layer: Layer, batch: int) -> Shape:
        """Return the shape of a layer that has channels."""
        return cls(
            batch,
            layer.groups,
            up(layer.in_channels, layer.groups),
            up(layer.out_channels, layer.groups),
            layer.kernel,
            layer.stride,
            layer.dilation,
            layer.in_size,
            layer.out_size,
            layer.transposed,
            round(layer.weights * layer.density),  # whole, so that it never rises by a rounding
        )

    @property
    def area(self) -> int:
        """Weights of one pair of channels."""
        return math.prod(self.kernel)

    @property
    def m(self) -> int:
        """How often the kernel is applied."""
        return self.batch * math.prod(self.in_size if self.transposed else self.out_size)

    @property
    def k(self) -> int:
        """Products summed for one value; of a transposed convolution, which sums later, one for each channel."""
        return self.in_channels * (1 if self.transposed else self.area)

    @property
    def n(self) -> int:
        """Values computed at each position."""
        return self.out_channels * (self.area if self.transposed else 1)

    @property
    def rows(self) -> Rows:
        """The convolution of one group by its rows; the positions of a linear layer are one column of rows."""
        size = self.in_size if self.transposed else self.out_size
        kernel, size = (*self.kernel, 1, 1), (*size, 1, 1)
        pairs = self.in_channels * self.out_channels * self.batch
        return Rows(kernel[0], math.prod(kernel[1:]), size[0], math.prod(size[1:]), pairs)

    @property
    def inputs(self) -> int:
        """Values that one group reads."""
        return self.batch * self.in_channels * math.prod(self.in_size)

    @property
    def weights(self) -> int:
        """Weights of one group."""
        return self.in_channels * self.out_channels * self.area

    @property
    def stored(self) -> int:
        """Weights of all groups."""
        return self.groups * self.weights

    @property
    def outputs(self) -> int:
        """Values that one group writes."""
        return self.batch * self.out_channels * math.prod(self.out_size)
