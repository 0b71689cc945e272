"""Cycles and traffic of a matrix product on a systolic array, in closed form.

A convolution is m = output positions, k = kernel area times input channels, n = output channels; rows x columns
multipliers. The array computes in *folds*, one for each piece of the operand that stays in it.
"""

from __future__ import annotations

from typing import NamedTuple

DATAFLOWS = ("output_stationary", "weight_stationary", "input_stationary", "row_stationary", "simd")
"""What stays in the array; ``simd`` is no array but a processor with rows x columns multipliers along k."""

SUM_BYTES = 4
"""Partial sums have 32 bits."""


def up(a: int, b: int) -> int:
    """Return a / b, rounded up."""
    return -(-a // b)


def cycles(dataflow: str, m: int, k: int, n: int, rows: int, columns: int, overlap: bool = False) -> int:
    """Return how many cycles a product of [m, k] and [k, n] takes.

    With ``overlap`` the next fold's weights (or inputs) are loaded while this one computes. Without, this is one more
    than what SCALE-Sim counts, which counts from 0.

    Units: cycles.

    Raises: ValueError for a dataflow without a closed form in m, k and n.

    Paper: Samajdar et al., A Systematic Methodology for Characterizing Scalability of DNN Accelerators using
    SCALE-Sim, ISPASS 2020, section III (the folds and the pipeline's ramps).

    >>> cycles("weight_stationary", 196, 2304, 256, 32, 32), cycles("output_stationary", 4, 9, 4, 2, 2)
    (167040, 44)
    """
    if dataflow == "output_stationary":
        return (rows + columns + k - 2) * up(m, rows) * up(n, columns)
    if dataflow == "weight_stationary":
        return _stationary(m, up(k, rows) * up(n, columns), rows, columns, overlap)
    if dataflow == "input_stationary":
        return _stationary(n, up(k, rows) * up(m, columns), rows, columns, overlap)
    if dataflow == "simd":
        return m * n * up(k, rows * columns)
    raise ValueError(dataflow)


def _stationary(streamed: int, folds: int, rows: int, columns: int, overlap: bool) -> int:
    """Return the cycles of folds that are loaded row by row, and have ``streamed`` vectors pass through them.

    With ``overlap`` the loading and the ramp down the rows are seen once, at the start.
    """
    apart = folds * (2 * rows + columns + streamed - 2)
    return min(apart, 2 * rows - 1 + folds * max(rows, columns + streamed - 1)) if overlap else apart


class Rows(NamedTuple):
    """A convolution as row stationary sees it, of one group.

    ``pairs`` counts the kernels of one input and one output channel, times the pictures.
    """

    kernel_rows: int
    kernel_columns: int
    out_rows: int
    out_columns: int
    pairs: int


def row_stationary(conv: Rows, rows: int, columns: int) -> int:
    """Return the cycles of a convolution on an array whose elements each convolve one row of a picture.

    A set of kernel rows x output rows elements does one pair of channels; ``side_by_side`` sets work at once, and
    output rows beyond the columns, and kernel rows beyond the rows, take more passes.

    Units: cycles.

    Paper: Chen et al., Eyeriss: A Spatial Architecture for Energy-Efficient Dataflow for CNNs, ISCA 2016, section V.

    Differs: an element is never idle while its set works, so this is a lower bound.
    """
    passes = up(conv.kernel_rows, rows) * up(conv.out_rows, columns)
    steps = up(conv.pairs, side_by_side(conv, rows, columns))
    return conv.out_columns * conv.kernel_columns * steps * passes


def side_by_side(conv: Rows, rows: int, columns: int) -> int:
    """Return how many sets of a row stationary array work at once."""
    return max(1, rows // conv.kernel_rows) * max(1, columns // conv.out_rows)


class Words(NamedTuple):
    """Values that move between the array and its memory; ``sums`` are partial sums, written and read again."""

    inputs: int
    weights: int
    sums: int
    outputs: int

    def bytes(self, value_bytes: int, written: int | None = None) -> int:
        """Return how many bytes that is; outputs have ``written`` bytes where they are of another width."""
        outputs = self.outputs * (value_bytes if written is None else written)
        return value_bytes * (self.inputs + self.weights) + outputs + SUM_BYTES * self.sums


def words(dataflow: str, m: int, k: int, n: int, rows: int, columns: int) -> Words:
    """Return what a product of [m, k] and [k, n] moves between the array and its memory.

    What stays in the array moves once; what streams moves once for each fold that it passes.

    Units: values.

    Raises: ValueError for a dataflow without a closed form in m, k and n.
    """
    if dataflow in ("output_stationary", "simd"):
        return Words(m * k * up(n, columns), k * n * up(m, rows), 0, m * n)
    sums = m * n * (2 * up(k, rows) - 1)
    if dataflow == "weight_stationary":
        return Words(m * k * up(n, columns), k * n, sums, 0)
    if dataflow == "input_stationary":
        return Words(m * k, k * n * up(m, columns), sums, 0)
    raise ValueError(dataflow)


class Registers(NamedTuple):
    """How many words of each kind an element of a row stationary array holds."""

    inputs: int
    weights: int
    sums: int


def row_stationary_words(
    conv: Rows, channels: tuple[int, int], held: Words, rows: int, columns: int, registers: Registers, value_bytes: int
) -> Words:
    """Return what a row stationary array moves; ``held`` counts a group's inputs, weights and outputs once.

    An element interleaves as many input channels and filters as its registers hold; the sets that work side by side
    share inputs, where they have different filters, or sums, where they have different channels, whichever moves less.

    Units: values.

    Paper: Chen et al., Eyeriss, ISCA 2016, section V-B (the parameters p, q, r and t).
    """
    ins, outs = channels
    q = max(1, registers.inputs // conv.kernel_columns)
    p = max(1, min(registers.weights // (q * conv.kernel_columns), registers.sums))
    sets = side_by_side(conv, rows, columns)
    weights = held.weights * up(conv.out_rows, columns)
    found = []
    for r in (2**i for i in range(sets.bit_length())):
        sums = held.outputs * (2 * up(ins, q * r) - 1)
        found.append(Words(held.inputs * up(outs, p * (sets // r)), weights, sums, 0))
    return min(found, key=lambda moved: moved.bytes(value_bytes))


def skipped(dataflow: str, m: int, k: int, n: int, rows: int, columns: int, nonzero: int, overlap: bool = False) -> int:
    """Return the cycles where weights of zero, ``nonzero`` being left, take no time: the array is packed without gaps.

    Units: cycles.

    Raises: ValueError for a dataflow without a closed form in m, k and n.
    """
    dense = cycles(dataflow, m, k, n, rows, columns, overlap)
    if dataflow == "output_stationary":
        ramps = (rows + columns - 2) * up(n, columns)
        return min(dense, up(m, rows) * (ramps + up(nonzero, columns)))
    if dataflow == "weight_stationary":
        return min(dense, _stationary(m, up(nonzero, rows * columns), rows, columns, overlap))
    if dataflow == "input_stationary":
        ramps = (2 * rows + columns - 2) * up(k, rows)
        return min(dense, up(m, columns) * (ramps + up(nonzero, rows)))
    return min(dense, m * up(nonzero, rows * columns))
