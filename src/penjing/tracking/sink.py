"""Where a tracker keeps what it is told; each library that can do it has a file of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

Setting: TypeAlias = str | int | float | bool
Status: TypeAlias = Literal["finished", "failed", "stopped"]


class Sink(Protocol):
    """One run as a tracker keeps it."""

    def told(self, name: str) -> set[int]:
        """Return the steps at which a figure is kept already, by an earlier process of the same run."""
        ...

    def settings(self, values: Mapping[str, Setting]) -> None:
        """Keep what the run was asked for; once more is no harm."""
        ...

    def figure(self, name: str, value: float, step: int) -> None:
        """Keep one value of a figure."""
        ...

    def final(self, figures: Mapping[str, float]) -> None:
        """Keep what the run came to."""
        ...

    def file(self, path: Path) -> None:
        """Keep a copy of a file, where the tracker does such things."""
        ...

    def close(self, status: Status) -> None:
        """Write down what is left, and how the run ended."""
        ...
