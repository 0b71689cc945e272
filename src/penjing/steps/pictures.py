"""How many unlabelled pictures a step takes."""

from __future__ import annotations

from typing import Any

from penjing.core.errors import PlanError
from penjing.core.protocols import Seeing
from penjing.data.data import Data
from penjing.steps.state import State


def need_some(step: str, images: Any) -> None:
    """Refuse what is no number of pictures.

    Raises: PlanError naming the step.
    """
    if isinstance(images, bool) or not isinstance(images, int) or images < 1:
        raise PlanError(f"{step}: images must be a whole number, 1 or more; got {images!r}.")


def seeing(change: Any, state: State, images: int, seed: int) -> Any:
    """Return a rewrite with the calibration pictures that it looks at, if it does.

    Raises: PlanError where it does and there is no data.
    """
    if not isinstance(change, Seeing):
        return change
    name = type(change).__name__
    return change.on(state.data_for(f"The rewrite {name}").calibration(images, seed, size=128))


def told_count(images: int, data: Data) -> str:
    """Say how many there are of so many asked."""
    return f"{min(images, len(data.train)):,} pictures"
