"""Evenly spaced levels: what the methods share that round to them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from penjing.core.errors import PlanError
from penjing.packing.levels import Levels
from penjing.quantizers.base import Reads, straight_through

Activations = int | Literal["same"] | None
"""Bits of what a layer reads: a number, ``same`` for as many as its weights have, None for floats."""

LEAST = 1e-8
"""The smallest step: what is divided by is never 0, nor so small that quotients overflow."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Numbers ``offset + step * q`` with whole q from ``lowest`` to ``highest``: what a layer may read.

    Shapes: all 0-dimensional tensors. ``round`` decides ties: to the even one, or ``half_away``.
    """

    step: Tensor
    lowest: Tensor
    highest: Tensor
    offset: Tensor
    round: Callable[[Tensor], Tensor] = torch.round

    def codes(self, x: Tensor) -> Tensor:
        """Return the q nearest to each number, of the same shape and type."""
        return self.round((x - self.offset) / self.step).clamp(self.lowest, self.highest)

    def values(self, codes: Tensor) -> Tensor:
        """Return the numbers that codes stand for."""
        return self.offset + codes * self.step


class EvenReads(Reads):
    """Rounds what a layer reads to a grid of evenly spaced numbers, 0 among them.

    Where no sample is negative the codes are 0 to 2 ** bits - 1, and else ``symmetric`` or those of two's complement.
    """

    lowest: Tensor
    highest: Tensor

    def __init__(self, bits: int, symmetric: bool = False) -> None:
        super().__init__(bits)
        self.symmetric = symmetric
        self.register_buffer("lowest", torch.tensor(0.0))
        self.register_buffer("highest", torch.tensor(2.0**bits - 1))

    def start(self, samples: Tensor) -> None:
        """Set the ends of the grid and its step.

        Raises: PlanError for samples that are not finite, or that need a sign where there is one bit.
        """
        finite(samples)
        lowest, highest = bounds(self.bits, bool((samples < 0).any()), self.symmetric)
        self.lowest.fill_(lowest)
        self.highest.fill_(highest)
        self.fit(samples.detach().reshape(1, -1), lowest, highest)

    @abstractmethod
    def fit(self, samples: Tensor, lowest: int, highest: int) -> None:
        """Set the step by samples, [1, n]."""

    @abstractmethod
    def grid(self) -> Grid:
        """Return the numbers that the layer may read."""


def half_away(x: Tensor) -> Tensor:
    """Return the nearest whole numbers; those halfway between two go away from zero.

    >>> half_away(torch.tensor([-1.5, -0.5, 0.49999997, 0.5, 2.5]))
    tensor([-2., -1.,  0.,  1.,  3.])
    """
    whole = x.trunc()  # x + 0.5 would be rounded, and then 0.49999997 were 1
    return whole + x.sign() * ((x - whole).abs() >= 0.5)


def bounds(bits: int, signed: bool, symmetric: bool = False) -> tuple[int, int]:
    """Return the least and the greatest code of so many bits.

    Raises: PlanError for one bit with a sign, which leaves no code above 0.

    >>> bounds(3, False), bounds(3, True), bounds(3, True, symmetric=True)
    ((0, 7), (-4, 3), (-3, 3))
    """
    if not signed:
        return 0, 2**bits - 1
    if bits < 2:
        raise PlanError(
            "A layer reads negative numbers too, which one bit cannot tell apart from 0; give activations of 2 bits or "
            "more, or exclude it."
        )
    highest = 2 ** (bits - 1) - 1
    return (-highest if symmetric else -highest - 1), highest


def finite(samples: Tensor) -> None:
    """Refuse samples that have no range.

    Raises: PlanError.
    """
    if not bool(samples.isfinite().all()):
        raise PlanError("What a layer reads is not finite (nan or inf), so that there is no step to round it by.")


def written(codes: Tensor, lowest: int, highest: int, scale: Tensor, bits: int) -> Levels:
    """Return whole numbers [out, ...] times a scale, one or one a filter, as levels."""
    table = torch.arange(lowest, highest + 1).float()
    return Levels(
        (codes.detach().flatten() - lowest).byte().cpu(), table, scale.detach().float().cpu(), tuple(codes.shape), bits
    )


def column(scale: Tensor, weight: Tensor) -> Tensor:
    """Return a scale, one or one a filter, in the shape in which it multiplies a weight."""
    return scale.reshape(-1, *[1] * (weight.dim() - 1)) if scale.dim() else scale


def slowed(value: Tensor, share: float) -> Tensor:
    """Return the value with its gradient times a share."""
    return straight_through(value * share, value)


def rows(weight: Tensor, per_filter: bool) -> Tensor:
    """Return a weight as [rows, n], a row a filter or one for all."""
    return weight.detach().flatten(1) if per_filter else weight.detach().reshape(1, -1)


def within(name: str, bits: int, widths: Sequence[int], what: str = "weights") -> int:
    """Return the bits, which the method named ``name`` has.

    Raises: PlanError naming it where it has not.
    """
    if isinstance(bits, bool) or bits not in widths:
        raise PlanError(f"{name}: {what} have {widths[0]} to {widths[-1]} bits; got {bits!r}.")
    return bits


def input_bits(activations: Activations, bits: int) -> int | None:
    """Return the bits of what a layer with weights of ``bits`` reads; None for floats."""
    return bits if activations == "same" else activations


def checked(name: str, activations: Activations, widths: Sequence[int]) -> None:
    """Refuse bits of what layers read that the method named ``name`` has not.

    Raises: PlanError naming it.
    """
    if activations is not None and activations != "same":
        within(name, activations, widths, "activations")
