"""How many times as fast, as results tell it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """A speed-up with its interval; above one means faster."""

    median: float
    low: float
    high: float
