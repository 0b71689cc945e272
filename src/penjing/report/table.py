"""The before/after table: one row a network, in the terminal and on the page alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from penjing.core.console import table
from penjing.report import units, words
from penjing.report.results import Row, read

_TERMINAL = str.maketrans({units.GAP: " ", "×": "x", "–": "-", "−": "-", "→": "->", "“": '"', "”": '"'})
_LINE = str.maketrans("\n\t", "  ")


@dataclass(frozen=True)
class Cell:
    """A value and, in smaller type, its interval."""

    text: str
    spread: str = ""


@dataclass(frozen=True)
class Column:
    """A heading and how a row fills it; None where the row has no such value."""

    heading: str
    fill: Callable[[Row], Cell | None]


def _accuracy(row: Row) -> Cell | None:
    if not row.tested:
        return None
    low, high = words.interval(row)
    return Cell(units.percent(row.accuracy), f"{low:.1f}–{high:.1f}")


def _latency(row: Row) -> Cell | None:
    if row.latency is None:
        return None
    return Cell(
        f"{units.significant(row.latency.median_ms)}{units.GAP}ms", units.span(row.latency.low_ms, row.latency.high_ms)
    )


def _ratio(row: Row) -> Cell | None:
    if row.ratio is None:
        return None
    return Cell(f"{units.significant(row.ratio.median)}×", units.span(row.ratio.low, row.ratio.high))


def _bundle(row: Row) -> Cell | None:
    if row.bundle is None:
        return None
    return Cell(units.size(row.bundle), "" if row.packed is None else f"{units.size(row.packed)} in memory")


TOLD = ("speed-up", "bundle")
"""Columns whose small type the terminal shows as well."""

COLUMNS = (
    Column("accuracy", _accuracy),
    Column("wrong", lambda row: Cell(f"{row.wrong:,} of {row.of:,}") if row.tested else None),
    Column("MACs", lambda row: Cell(units.scaled(row.macs))),
    Column("parameters", lambda row: Cell(units.scaled(row.params))),
    Column("not zero", lambda row: None if row.nonzero is None else Cell(units.scaled(row.nonzero))),
    Column("file size", lambda row: Cell(units.size(row.size))),
    Column("bundle", _bundle),
    Column("memory", lambda row: None if row.memory is None else Cell(units.size(row.memory))),
    Column("latency", _latency),
    Column("speed-up", _ratio),
)


def columns(rows: list[Row]) -> list[Column]:
    """Return the columns that at least one of these rows can fill."""
    return [column for column in COLUMNS if any(column.fill(row) is not None for row in rows)]


def summary_table(results: Mapping[str, Any]) -> str:
    """Return the networks of a finished run as a plain text table.

    What stands in small type is left to the page, except that of the speed-up and the bundle.

    Raises: RecipeError naming the key that is missing or wrong.
    """
    checked = read(results)
    shown = columns(checked.rows)

    def text(column: Column, row: Row) -> str:
        cell = column.fill(row)
        if cell is None:
            return "-"
        return f"{cell.text} ({cell.spread})" if cell.spread and column.heading in TOLD else cell.text

    grid = [[row.name, *(text(column, row) for column in shown)] for row in checked.rows]
    cells = [[_one_line(cell) for cell in line] for line in grid]
    return table(_one_line(checked.name), ["network", *(column.heading for column in shown)], cells)


def plain(text: str) -> str:
    """Return text in the signs that every terminal has."""
    return text.translate(_TERMINAL)


def _one_line(text: str) -> str:
    return plain(text).translate(_LINE)
