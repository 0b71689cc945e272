"""What torch pads a picture with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penjing.core.errors import PlanError


def sides(padding: Any, kernel: Sequence[int], dilation: Sequence[int]) -> tuple[int, int, int, int]:
    """Return left, right, top, bottom; ``same`` puts what is odd on the right and below, as torch does.

    Raises: PlanError for another padding.
    """
    if padding == "same":
        down, across = (d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
        return across // 2, across - across // 2, down // 2, down - down // 2
    four = (0, 0) if padding == "valid" else (padding, padding) if isinstance(padding, int) else tuple(padding)
    four = (four[1], four[1], four[0], four[0]) if len(four) == 2 else four
    if len(four) != 4 or (isinstance(padding, str) and padding != "valid") or min(four) < 0:
        raise PlanError(f"padding is 'same', 'valid' or one, two or four numbers from 0 on; got {padding!r}.")
    return four
