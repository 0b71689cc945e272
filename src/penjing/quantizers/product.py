"""Product quantization: short vectors of weights are shared, chosen by what they do to what the layer really reads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.core.padding import sides
from penjing.core.random import torch_stream
from penjing.core.registry import register
from penjing.packing.levels import Levels
from penjing.quantizers.base import Quantizer, Weights, scaled_gradient
from penjing.quantizers.vectors import share

FEWEST = 4
"""Vectors a level at least; a table of more levels would hold nearly the weight itself."""


@register("quantizer")
@dataclass(frozen=True)
class product(Quantizer):  # noqa: N801  (registered under its own name)
    """Write each short vector of a layer's weight as one of at most 2 ** bits shared ones, and train those.

    ``kernel`` numbers make a vector in convolutions, ``point`` in 1x1 convolutions and linear layers; where a filter is
    no whole number of those, the nearest length that divides it. So ``bits`` are those of a vector.

    Paper: Stock et al., And the Bit Goes Down, 2020, section 3. Its regime of large blocks is
    ``kernel`` 18, ``point`` 8 (of fully connected layers always 4).
    Differs: all samples count in every round, and each block of inputs by its own second moments, where the paper
    draws rows anew and pools the blocks; rounds start from spread-out vectors (k-means++), not from random ones.
    """

    widths: ClassVar[tuple[int, ...]] = (1, 2, 3, 4, 5, 6, 7, 8)
    usual: ClassVar[int] = 8
    sees: ClassVar[bool] = True

    kernel: int = 9
    point: int = 4

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        for name in ("kernel", "point"):
            if getattr(self, name) < 1:
                raise PlanError(f"product: {name} is how many numbers make a vector; got {getattr(self, name)}.")

    def weights(self, shape: tuple[int, ...], bits: int) -> Vectors:
        """Return what rounds a weight."""
        return Vectors(shape, bits, *self._table(shape, bits))

    def stored(self, shape: tuple[int, ...], bits: int) -> int:
        """Return the bits of the codes and of the table."""
        levels, width = self._table(shape, bits)
        return _code_bits(levels) * (math.prod(shape) // width) + 32 * levels * width

    def _table(self, shape: tuple[int, ...], bits: int) -> tuple[int, int]:
        """Return how many levels a table has, and how many numbers each."""
        row, wanted = math.prod(shape[1:]), self.kernel if math.prod(shape[2:]) > 1 else self.point
        width = min((w for w in range(1, row + 1) if row % w == 0), key=lambda w: abs(w - wanted))
        return max(1, min(2**bits, math.prod(shape) // width // FEWEST)), width


class Vectors(Weights):
    """A table of vectors, which is trained, and frozen codes.

    The gradient of a vector is the mean over its places; the table is flat, since training decays whatever has two
    dimensions. Shapes: codes uint8 [numbers / width]; table [levels * width]; part [levels, 1], 1 over the places.
    """

    latent: ClassVar[bool] = False
    codes: Tensor
    part: Tensor

    def __init__(self, shape: tuple[int, ...], bits: int, levels: int, width: int) -> None:
        super().__init__(bits)
        self.shape, self.width = shape, width
        self.table = nn.Parameter(torch.zeros(levels * width))
        self.register_buffer("codes", torch.zeros(math.prod(shape) // width, dtype=torch.uint8))
        self.register_buffer("part", torch.ones(levels, 1))
        self.moments: Tensor | None = None

    def see(self, samples: Tensor, layer: nn.Module) -> None:
        """Add up the second moments of each block of inputs that one vector of a filter meets.

        Raises: PlanError where they are not finite.
        """
        found = moments(samples, layer, self.width)
        if not bool(found.isfinite().all()):
            raise PlanError("The squares of what it reads overflow; normalise the pictures as for training.")
        self.moments = found

    def start(self, weight: Tensor) -> Tensor:
        """Find table and codes: of the least output error on what was seen, or else the least error of the weight."""
        blocks = 1 if self.moments is None else len(self.moments)
        groups = blocks * self.width // math.prod(self.shape[1:]) or 1
        rows = weight.detach().double().cpu().view(groups, self.shape[0] // groups, -1, self.width)
        vectors = rows.transpose(1, 2).flatten(0, 1)  # [blocks, filters, width]
        table, codes = share(vectors, self.moments, len(self.part), torch_stream(0, "product"))
        codes = codes.view(groups, -1, self.shape[0] // groups).transpose(1, 2).flatten()
        places = torch.bincount(codes, minlength=len(table))
        with torch.no_grad():
            self.table.copy_(table.flatten())
            self.codes.copy_(codes)
            self.part.copy_(1 / places.clamp_min(1)[:, None])
        self.moments = None
        return super().start(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the vector of each place; ``weight`` has no part in it."""
        table = scaled_gradient(self.table.view(-1, self.width), self.part)
        return table.index_select(0, self.codes.long()).view(self.shape)

    def levels(self, weight: Tensor) -> Levels:
        """Return table and codes."""
        table = self.table.detach().view(-1, self.width).float().cpu()
        return Levels(self.codes.cpu(), table, torch.tensor(1.0), self.shape, _code_bits(len(table)))


def _code_bits(levels: int) -> int:
    return max(1, (levels - 1).bit_length())


def moments(samples: Tensor, layer: Any, width: int) -> Tensor:
    """Return the mean of x xᵀ over pictures and positions, of each ``width`` inputs that follow one another in a row.

    A row is what one filter is multiplied by. Shapes: samples [n, channels, ...]; returns float64 [blocks, width,
    width], the blocks of the first group first.
    """
    found, count = None, 0
    for x in samples.split(8):
        rows = _rows(x.detach(), layer)  # [positions, groups * row]
        blocks = rows.view(len(rows), -1, width).permute(1, 2, 0)
        part = (blocks @ blocks.mT).cpu().double()
        found, count = part if found is None else found + part, count + len(rows)
    if found is None:
        raise PlanError("There are no samples of what the layer reads.")
    return found / count


def _rows(x: Tensor, layer: Any) -> Tensor:
    if not isinstance(layer, nn.Conv2d):
        return x.flatten(0, -2)
    around = sides(layer.padding, layer.kernel_size, layer.dilation)
    x = F.pad(x, around, "constant" if layer.padding_mode == "zeros" else layer.padding_mode)
    patches = F.unfold(x, layer.kernel_size, layer.dilation, 0, layer.stride)
    return patches.transpose(1, 2).flatten(0, 1)
