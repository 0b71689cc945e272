"""How many unlabelled pictures a step takes."""

from __future__ import annotations

from typing import Any

from penjing.core.errors import PlanError
from penjing.data.data import Data


def need_some(step: str, images: Any) -> None:
    """Refuse what is no number of pictures.

    Raises: PlanError naming the step.
    """
    if isinstance(images, bool) or not isinstance(images, int) or images < 1:
        raise PlanError(f"{step}: images must be a whole number, 1 or more; got {images!r}.")


def told_count(images: int, data: Data) -> str:
    """Say how many there are of so many asked."""
    return f"{min(images, len(data.train)):,} pictures"
