"""Learn from the target which channel counts are worth having."""

from __future__ import annotations

from collections.abc import Callable

from penjing.costs.probe import Shape
from penjing.costs.table import LayerTable

STEPS = (1, 2, 4, 8, 16, 32)

ALIGNED = tuple(range(64, 129, 4))
CROOKED = (66, 75, 86, 97, 107, 118)
"""Widths that are no multiples of four, which ONNX Runtime computes on a slower path."""

TOLERANCE = 0.25
"""How much of the extra arithmetic may show as extra time; a step twice too large shows about half of it."""


def learn_step(table: LayerTable, *, size: tuple[int, int] = (14, 14), kernel: int = 3) -> int:
    """Return the multiple that channel counts should be rounded up to on this target.

    It is the largest step, of 1 to 32, at which rounding a width up costs no time, so that widths between two
    multiples bring nothing. Square convolutions of 64 to 128 channels are timed; with AVX-512 and 32-bit floats the
    step is 16: ONNX Runtime computes in blocks of 16 channels, and a count that is no multiple of 4 is slower
    than the next multiple of 16.

    Where time follows the arithmetic, the answer is 1.
    """

    def time(width: int) -> float:
        sides = (kernel, kernel), (1, 1), (1, 1)
        return table.timed(Shape(width, width, 1, *sides, in_size=size, out_size=size))

    return max(step for step in STEPS if _extra(step, time) <= TOLERANCE)


def _extra(step: int, time: Callable[[int], float]) -> float:
    """Return how much of the arithmetic that rounding up adds shows as time: 0 on a flat stair, 1 on a slope."""
    # The slow path would hide a slope between aligned widths, so large steps are judged without it.
    widths = [width for width in (ALIGNED if step > 4 else CROOKED) if width % step]
    longer = arithmetic = 0.0
    for width in widths:
        rounded = -(-width // step) * step
        longer += time(rounded) - time(width)
        arithmetic += time(width) * ((rounded / width) ** 2 - 1)
    return longer / arithmetic if arithmetic else 0.0
