"""A weight whose every number, or every short vector of numbers, is one of a few."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from penjing.core.errors import PlanError

MOST_BITS = 8
"""A code is a byte at most."""


@dataclass(frozen=True, eq=False)
class Levels:
    """A weight written as codes: ``table[codes] * scale``, in the order of the flattened weight.

    Shapes: codes uint8 [numbers / width]; table float32 [levels] or [levels, width], where a code stands for ``width``
    numbers of the weight that follow one another; scale float32 [] or [shape[0]], one a filter; ``shape`` the weight's.
    ``bits`` are those of a code, so that a table has at most 2 ** bits levels.
    """

    codes: Tensor
    table: Tensor
    scale: Tensor
    shape: tuple[int, ...]
    bits: int

    def __post_init__(self) -> None:
        """Refuse what is no weight.

        Raises: PlanError naming what does not fit.
        """
        if not 1 <= self.bits <= MOST_BITS or self.codes.dtype != torch.uint8 or self.table.ndim not in (1, 2):
            raise PlanError(f"A code has 1 to {MOST_BITS} bits and is a byte, its table has one or two dimensions.")
        if not 1 <= len(self.table) <= 2**self.bits:
            raise PlanError(
                f"{self.bits} bits tell {2**self.bits} levels apart at most; the table has {len(self.table)}."
            )
        if self.codes.numel() * self.width != torch.Size(self.shape).numel():
            raise PlanError(
                f"{self.codes.numel()} codes of {self.width} numbers each make no weight {list(self.shape)}."
            )
        if self.codes.numel() and int(self.codes.max()) >= len(self.table):
            raise PlanError(f"Code {int(self.codes.max())} is outside of a table of {len(self.table)} levels.")
        if self.scale.numel() != 1 and tuple(self.scale.shape) != self.shape[:1]:
            raise PlanError(f"A scale is one number or one a filter ({self.shape[0]}); got {list(self.scale.shape)}.")

    @property
    def width(self) -> int:
        """How many numbers of the weight one code stands for."""
        return 1 if self.table.ndim == 1 else self.table.shape[1]

    def values(self) -> Tensor:
        """Return the weight, float32 [shape]."""
        flat = self.table[self.codes.long()].reshape(self.shape)
        return flat * self.scale.reshape(-1, *[1] * (len(self.shape) - 1))
