"""Which tiles of a layer lie on the chip at one time, and what crosses to DRAM because the rest does not."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penjing.core.units import Ints
from penjing.targets.shape import Shape
from penjing.targets.systolic import SUM_BYTES


class Tiling(NamedTuple):
    """``dram_bytes`` is the least traffic that tiles fitting the memory cause, or None where none fits.

    ``need_bytes`` is the least memory with which everything would cross once, ``least_bytes`` that of the smallest
    tile; both of one group.
    """

    dram_bytes: float | None
    need_bytes: int
    least_bytes: int


class Crossing(NamedTuple):
    """Bits that cross to DRAM: of a value that is read, of all weights of all groups, of a value that is written."""

    read: int
    weights: int
    written: int


class _Cuts(NamedTuple):
    """Ways to cut the positions into tiles, one an entry.

    ``positions`` and ``pixels`` count, a tile, the output positions and the values read of one channel; ``tiles`` how
    many there are, and ``read`` the values of one channel that all of them read, where they overlap more than once.
    """

    positions: Ints
    pixels: Ints
    tiles: Ints
    read: Ints


def tiling(shape: Shape, value_bytes: int, memory_bytes: float, crossing: Crossing | None = None) -> Tiling:
    """Return what the best tiles and order of loops of a layer cost.

    A value takes ``value_bytes`` on the chip, and in DRAM as well where ``crossing`` does not tell another width.

    A tile is m output positions by k input channels by n output channels; it takes
    2 * value_bytes * (pixels * k + kernel area * k * n) + 4 * m * n, since what comes next is loaded meanwhile. One of
    the three operands stays on the chip while the innermost loop runs, and then crosses once; the others come again
    with each round of the loop that they do not depend on.

    Sides are powers of two or the whole, so that the tiles of a smaller layer are among those of a larger one, cut to
    its size: nothing costs more when a channel goes.

    Units: bytes.
    """
    cuts = _cuts(shape)
    k, n = _sides(shape.in_channels)[:, None], _sides(shape.out_channels)
    m, pixels, tm, read = (one[:, None, None] for one in cuts)
    tk, tn = _up(shape.in_channels, k), _up(shape.out_channels, n)
    size = 2 * value_bytes * (pixels * k + shape.area * k * n) + SUM_BYTES * m * n * _written(shape)
    bits = Crossing(8 * value_bytes, 8 * value_bytes * shape.stored, 8 * value_bytes)
    bits = bits if crossing is None else crossing
    inputs, once = (pixels * shape.in_channels * shape.groups * bits.read for pixels in (read, int(cuts.read.min())))
    spilled = 2 * 8 * SUM_BYTES * shape.outputs * shape.groups * (tk - 1)
    sums_stay = inputs * tn + bits.weights * tm
    weights_stay = inputs * tn + bits.weights + spilled
    inputs_stay = inputs + bits.weights * tm + spilled
    moved = np.minimum(np.minimum(sums_stay, weights_stay), inputs_stay)
    fits = size <= memory_bytes
    dram = (int(moved[fits].min()) + bits.written * shape.outputs * shape.groups) / 8 if fits.any() else None
    need = size[moved == once + bits.weights].min()
    return Tiling(dram, int(need), int(size.min()))


def _written(shape: Shape) -> int:
    """Return how many values of one channel a position writes."""
    return shape.area if shape.transposed else 1


def _cuts(shape: Shape) -> _Cuts:
    """Return blocks of whole pictures, of rows of one picture, of columns of one row, and so on."""
    outs = shape.in_size if shape.transposed else shape.out_size
    axes = [(shape.batch, shape.batch, 1, 1)]
    for i, (size, out) in enumerate(zip(shape.in_size, outs, strict=True)):
        kernel = 1 if shape.transposed or i >= len(shape.kernel) else (shape.kernel[i] - 1) * shape.dilation[i] + 1
        stride = 1 if shape.transposed or i >= len(shape.stride) else shape.stride[i]
        axes.append((size, out, kernel, stride))
    found = [_cut_along(axes, i) for i in range(len(axes))]
    return _Cuts(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _cut_along(axes: list[tuple[int, int, int, int]], cut: int) -> _Cuts:
    """Return the blocks that have one of each axis before ``cut``, and all of those after it."""
    sides = _sides(axes[cut][1])
    positions, pixels, tiles, read = (np.ones_like(sides) for _ in range(4))
    for i, (size, out, kernel, stride) in enumerate(axes):
        side = np.ones_like(sides) if i < cut else sides if i == cut else np.full_like(sides, out)
        count = _up(out, side)
        reach = min(stride, kernel)  # of a stride beyond the kernel, what lies between is not read
        positions *= side
        again = kernel - reach  # what two neighbours both read
        pixels *= np.minimum(size, side * reach + again)
        tiles *= count
        read *= np.minimum(count * size, min(size, out * reach + again) + (count - 1) * again)
    return _Cuts(positions, pixels, tiles, read)


def _sides(size: int) -> Ints:
    """Return the powers of two below a size, and the size."""
    return np.array([*(2**i for i in range((size - 1).bit_length())), size], dtype=np.int64)


def _up(size: int, side: NDArray[Any]) -> Ints:
    counts: Ints = -(-size // side)
    return counts
