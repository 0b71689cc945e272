"""Units: the smallest things that may go, counted through the whole graph; arrays hold their numbers."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Kept: TypeAlias = Ints
"""The indices of the units that stay, ascending."""


def is_gone(units: Ints, gone: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell, for each unit along an axis (-1: none), whether it goes."""
    found: NDArray[np.bool_] = (units >= 0) & gone[np.maximum(units, 0)]
    return found
