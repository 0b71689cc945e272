"""The one place that prints: progress bars, log lines, tables, and events for programs.

A bar shows only on a terminal; in a pipe each finished stage leaves one plain line on stderr, so that stdout stays
clean for results. ``quiet()`` silences both. What happens is also emitted as events, plain JSON data, for whoever is
``listening``; ``json_lines()`` writes them to stdout.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from penjing.core.plain import json_text

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

Listener = Callable[[Mapping[str, Any]], None]

_quiet = False
_listeners: tuple[Listener, ...] = ()


# ---------------------------------------------------------------------------------------------------- for programs


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Hand the events inside the block to ``listener`` as well."""
    with _heard_by(*_listeners, listener):
        yield


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Hand the events inside the block to nobody."""
    with _heard_by():
        yield


@contextlib.contextmanager
def _heard_by(*listeners: Listener) -> Iterator[None]:
    global _listeners
    before, _listeners = _listeners, listeners
    try:
        yield
    finally:
        _listeners = before


def emit(event: str, **facts: Any) -> None:
    """Tell whoever listens what happened; ``event`` says what kind of fact it is."""
    for listener in _listeners:
        listener({"event": event, **facts})


@contextlib.contextmanager
def json_lines(wanted: bool = True) -> Iterator[None]:
    """Write the events inside the block to stdout, a line of JSON each; unless ``wanted``, leave all as it is.

    A reader that goes away does not stop the work.
    """
    with listening(_line) if wanted else contextlib.nullcontext():
        yield


def _line(event: Mapping[str, Any]) -> None:
    try:
        print(json_text(event), flush=True)
    except BrokenPipeError:
        drop_stdout()


def drop_stdout() -> None:
    """Throw away what else goes to stdout, which nobody reads, or can be told, any more."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# ------------------------------------------------------------------------------------------------------ for people


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False)


@contextlib.contextmanager
def quiet(silent: bool = True) -> Iterator[None]:
    """Silence what people see inside the block; events go on."""
    global _quiet
    before, _quiet = _quiet, silent or _quiet
    try:
        yield
    finally:
        _quiet = before


def watched() -> bool:
    """Tell whether somebody sees progress: stderr is a terminal, and not silenced."""
    return not _quiet and sys.stderr.isatty()


def say(text: str) -> None:
    """Write one line to stderr."""
    if not _quiet:
        _console().print(text, markup=False, soft_wrap=True)


def remark(text: str) -> None:
    """Say something that programs should hear as well."""
    emit("remark", text=text)
    say(text)


def track(items: Iterable[T], text: str, total: int | None = None) -> Iterator[T]:
    """Yield the items with a progress bar; the bar disappears when done."""
    if not watched():
        yield from items
        return
    with bar(text, total if total is not None else len(items)) as step:  # type: ignore[arg-type]
        for item in items:
            yield item
            step(1, text)


class Step:
    """What ``bar`` hands out: call it with how much was done and, if it changed, the text.

    What an earlier process did is not ``worked`` for: it says nothing of how fast this one is.
    """

    def __call__(self, done: float = 1, text: str | None = None, *, worked: bool = True) -> None:
        """Advance the bar."""


@contextlib.contextmanager
def bar(text: str, total: float | None) -> Iterator[Step]:
    """Show a progress bar, with time left where the total is known, while the block runs; only on a terminal."""
    if not watched():
        yield Step()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Pace is taken over a whole day, or of what comes slower than half a minute there would be none.
    with Progress(*columns, console=_console(), transient=True, speed_estimate_period=86_400) as progress:
        task = progress.add_task(text, total=total)

        class Advance(Step):
            def __call__(self, done: float = 1, text: str | None = None, *, worked: bool = True) -> None:
                if worked:
                    progress.update(task, advance=done, description=text)
                else:
                    there = progress.tasks[0].completed + done
                    progress.reset(task, completed=there, description=text)  # type: ignore[arg-type]

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
