"""Fixed point: whole numbers times powers of two, so that a machine without floats shifts instead of multiplying."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from penjing.core.registry import register
from penjing.packing.levels import Levels
from penjing.quantizers.base import Quantizer, Weights, straight_through
from penjing.quantizers.observers import largest, squared_error
from penjing.quantizers.uniform import (
    Activations,
    EvenReads,
    Grid,
    bounds,
    checked,
    column,
    half_away,
    input_bits,
    rows,
    within,
    written,
)

FINER = 8
"""How many halvings of the step that clips nothing are tried."""


@register("quantizer")
@dataclass(frozen=True)
class fixed(Quantizer):  # noqa: N801  (registered under its own name)
    """Round weights and what layers read to fixed point, Qm.n: steps are powers of two, and ends lie symmetrically.

    ``activations`` are bits, or ``same`` as the weights'. ``start`` takes the step of the least squared error, or
    the smallest that clips nothing (``max``); ``per_filter`` gives every filter a step of its own. Steps stay as they
    begin. Numbers halfway between two go away from zero, as ``integer`` rounds, so that a layer computes bit by bit
    what shifts of whole numbers do while its sums, counted in input step times weight step, stay below 2 ** 24, up to
    which float32 holds every whole number.
    """

    widths: ClassVar[tuple[int, ...]] = tuple(range(2, 9))
    usual: ClassVar[int] = 8

    activations: Activations = "same"
    start: Literal["mse", "max"] = "mse"
    per_filter: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        checked(self.name, self.activations, self.widths)

    def weights(self, shape: tuple[int, ...], bits: int) -> FixedWeights:
        """Return what rounds a weight."""
        return FixedWeights(shape, within(self.name, bits, self.widths), self)

    def reads(self, channels: int, bits: int) -> FixedReads | None:
        """Return what rounds what a layer reads."""
        wanted = input_bits(self.activations, bits)
        return None if wanted is None else FixedReads(wanted, self.start == "mse")


class FixedWeights(Weights):
    """Weights rounded to whole multiples of a power of two."""

    step: Tensor

    def __init__(self, shape: tuple[int, ...], bits: int, options: fixed) -> None:
        super().__init__(bits)
        self.options = options
        self.lowest, self.highest = bounds(bits, signed=True, symmetric=True)
        self.register_buffer("step", torch.ones(shape[0] if options.per_filter else ()))

    @torch.no_grad()
    def start(self, weight: Tensor) -> Tensor:
        """Set the step by the trained weight."""
        flat = rows(weight, self.options.per_filter)
        found = power_of_two(flat, self.lowest, self.highest, self.options.start == "mse")
        self.step.copy_(found.reshape(self.step.shape))
        return super().start(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the rounded weight."""
        return _rounded(weight, column(self.step, weight), self.lowest, self.highest)

    def levels(self, weight: Tensor) -> Levels:
        """Return the whole numbers and the step."""
        codes = half_away(weight.detach() / column(self.step, weight)).clamp(self.lowest, self.highest)
        return written(codes, self.lowest, self.highest, self.step, self.bits)


class FixedReads(EvenReads):
    """What a layer reads, rounded to whole multiples of a power of two."""

    step: Tensor

    def __init__(self, bits: int, search: bool) -> None:
        super().__init__(bits, symmetric=True)
        self.search = search
        self.register_buffer("step", torch.tensor(1.0))

    def fit(self, samples: Tensor, lowest: int, highest: int) -> None:
        """Set the step by samples."""
        self.step.copy_(power_of_two(samples, lowest, highest, self.search)[0])

    def forward(self, x: Tensor) -> Tensor:
        """Return the rounded input."""
        return _rounded(x, self.step, self.lowest, self.highest)

    def grid(self) -> Grid:
        """Return the numbers that the layer may read."""
        return Grid(self.step, self.lowest, self.highest, torch.zeros_like(self.step), half_away)


def _rounded(x: Tensor, step: Tensor, lowest: int | Tensor, highest: int | Tensor) -> Tensor:
    """Return x rounded, with the gradient of what is not clipped."""
    ends = lowest * step, highest * step
    clipped = torch.minimum(torch.maximum(x, ends[0]), ends[1])
    return straight_through(clipped, half_away(clipped.detach() / step) * step)


def power_of_two(x: Tensor, lowest: int, highest: int, search: bool) -> Tensor:
    """Return, for each row of x, the smallest power of two that clips nothing, or a finer one of less squared error.

    >>> power_of_two(torch.tensor([[0.5, -1.27]]), -127, 127, search=False)
    tensor([0.0156])
    """
    share, exponent = torch.frexp(largest(x, lowest, highest))
    exponent = exponent - (share == 0.5).int()
    whole = x.new_tensor([math.ldexp(1.0, one) for one in exponent.tolist()])
    if not search:
        return whole
    tried = torch.stack([whole * 0.5**finer for finer in range(FINER)], 1)
    errors = torch.stack([squared_error(x, step, lowest, highest) for step in tried.unbind(1)], 1)
    return tried.gather(1, errors.argmin(1, keepdim=True))[:, 0]
