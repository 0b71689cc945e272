"""The one place that prints: progress bars, log lines and tables, silent where nobody looks.

A bar shows only on a terminal; in a pipe each finished stage leaves one plain line on stderr, so that stdout stays
clean for results. ``quiet()`` silences both.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

_quiet = False


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False)


@contextlib.contextmanager
def quiet(silent: bool = True) -> Iterator[None]:
    """Silence the console inside the block."""
    global _quiet
    before, _quiet = _quiet, silent or _quiet
    try:
        yield
    finally:
        _quiet = before


def say(text: str) -> None:
    """Write one line to stderr."""
    if not _quiet:
        _console().print(text, markup=False, soft_wrap=True)


def track(items: Iterable[T], text: str, total: int | None = None) -> Iterator[T]:
    """Yield the items with a progress bar; the bar disappears when done."""
    if _quiet or not sys.stderr.isatty():
        yield from items
        return
    with bar(text, total if total is not None else len(items)) as step:  # type: ignore[arg-type]
        for item in items:
            yield item
            step(1, text)


class Step:
    """What ``bar`` hands out: call it with how much was done and, if it changed, the text."""

    def __call__(self, done: float = 1, text: str | None = None) -> None:
        """Advance the bar."""


@contextlib.contextmanager
def bar(text: str, total: float | None) -> Iterator[Step]:
    """Show a progress bar, with time left where the total is known, while the block runs; only on a terminal."""
    if _quiet or not sys.stderr.isatty():
        yield Step()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_console(), transient=True) as progress:
        task = progress.add_task(text, total=total)

        class Advance(Step):
            def __call__(self, done: float = 1, text: str | None = None) -> None:
                progress.update(task, advance=done, description=text)

        yield Advance()


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a plain text table; the first column is left-aligned, the others right-aligned.

    >>> print(table("Sizes", ["name", "MACs"], [["a", "10"], ["long name", "5"]]))
    Sizes
    name       MACs
    ---------  ----
    a            10
    long name     5
    """
    grid = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[i]) for row in grid) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        return "  ".join(cells).rstrip()

    rule = "  ".join("-" * w for w in widths)
    return "\n".join([*([title] if title else []), line(grid[0]), rule, *(line(row) for row in grid[1:])])
