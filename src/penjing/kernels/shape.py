"""How convolutions say their stride, dilation and padding."""

from __future__ import annotations

from typing import Any

from penjing.core.errors import PlanError

Pair = int | tuple[int, int]


def pair(name: str, given: Pair) -> tuple[int, int]:
    """Return a number of both directions, or of each.

    Raises: PlanError for what is none.
    """
    pair = (given, given) if isinstance(given, int) else tuple(given)
    if len(pair) != 2 or min(pair) < 1:
        raise PlanError(f"{name} is one or two numbers from 1 on; got {given}.")
    return pair[0], pair[1]


def sides(padding: Any, kernel: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return left, right, top, bottom; ``same`` puts what is odd on the right and below, as torch does."""
    if padding == "same":
        down, across = (d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
        return across // 2, across - across // 2, down // 2, down - down // 2
    sides = (0, 0) if padding == "valid" else (padding, padding) if isinstance(padding, int) else tuple(padding)
    sides = (sides[1], sides[1], sides[0], sides[0]) if len(sides) == 2 else sides
    if len(sides) != 4 or (isinstance(padding, str) and padding != "valid") or min(sides) < 0:
        raise PlanError(f"padding is 'same', 'valid' or one, two or four numbers from 0 on; got {padding!r}.")
    return sides
