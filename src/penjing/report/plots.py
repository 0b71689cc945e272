"""The figures of the report, each drawn twice: for a desk or paper, and for a phone, where shrinking would blur it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from penjing.report import svg, units, words
from penjing.report.results import ORIGINAL, RESULT, Epoch, Results, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Locator

WIDE, NARROW = 760, 340
"""Widths of the two drawings in CSS pixels; at these widths a letter keeps its size."""


@dataclass(frozen=True)
class Picture:
    """One figure in two widths, each one or more SVG elements, with what it shows in words."""

    wide: str
    narrow: str
    alt: str
    caption: str


def picture(key: str, draw: Callable[[int], Figure], alt: str, caption: str) -> Picture:
    """Draw a figure in both widths; ``key`` tells its names apart from those of other figures."""
    return Picture(drawn(key, WIDE, draw), drawn(key, NARROW, draw), alt, caption)


def drawn(key: str, width: int, draw: Callable[[int], Figure]) -> str:
    """Return a figure in one width, as SVG."""
    name = f"{key}-{width}"
    with svg.drawing(name):
        return svg.inline(draw(width), name)


def canvas(width: int, height: float) -> Figure:
    """Return an empty figure of this size in CSS pixels."""
    from matplotlib.figure import Figure

    # 72 pixels to the inch make one unit of the SVG one CSS pixel and a 12 point letter 12 pixels high.
    return Figure(figsize=(width / 72, height / 72), dpi=72)


def shorten(text: str, length: int) -> str:
    """Cut the middle out of a long name; the end tells layers apart and gets the larger share.

    >>> shorten("features.denseblock3.conv1", 16)
    'featu…ock3.conv1'
    """
    text = " ".join(text.split())
    if len(text) <= length:
        return text
    head = (length - 1) // 3
    return f"{text[:head].rstrip('.')}…{text[len(text) - (length - 1 - head) :].lstrip('.')}"


def trade_off(results: Results) -> list[Picture]:
    """Draw accuracy against cost: against latency where it was measured, and against MACs where a row has none."""
    if not results.tested:
        return []
    timed = [row for row in results.rows if row.latency is not None]
    pictures = []
    if {ORIGINAL, RESULT} <= {row.name for row in timed}:
        pictures.append(_scatter("latency", timed))
    if not pictures or len(timed) < len(results.rows):
        pictures.append(_scatter("macs", results.rows))
    return pictures


def _cost(row: Row, key: str) -> tuple[float, float, float]:
    if key == "latency" and row.latency is not None:
        return row.latency.median_ms, row.latency.low_ms, row.latency.high_ms
    return row.macs, row.macs, row.macs


def _scatter(key: str, rows: list[Row]) -> Picture:
    unit = "ms" if key == "latency" else "MACs"
    points = "; ".join(
        f"{row.name}: {units.percent(row.accuracy)} at {units.quantity(_cost(row, key)[0], unit)}" for row in rows
    )
    what = "latency" if key == "latency" else "MACs"
    caption = (
        f"Accuracy against {what}; up and left is better. Vertical lines: 95{units.GAP}% interval of the accuracy, on "
        "a scale that does not begin at zero."
    )
    if key == "latency":
        caption += " Horizontal lines: spread of the measurements."
    if _shifts([_cost(row, key)[0] for row in rows]) != [0] * len(rows):
        caption += f" Networks of nearly equal {what} are moved a little apart, so that none hides another."
    return picture(
        f"tradeoff-{key}",
        lambda width: _draw_scatter(width, key, rows),
        f"Scatter of accuracy against {what}. {points}.",
        caption,
    )


def _shifts(costs: list[float]) -> list[int]:
    """Return by how many places each point moves sideways, so that points of nearly one cost do not cover another."""
    near = 0.02 * max(costs)
    places = [0] * len(costs)
    for i, cost in enumerate(costs):
        taken = {places[j] for j in range(i) if abs(costs[j] - cost) <= near}
        places[i] = next(p for p in (0, 1, -1, 2, -2, *range(3, len(costs) + 1)) if p not in taken)
    return places


_STYLES = ((svg.CLAY, "s"), (svg.STONE, "^"), (svg.SOFT, "v"), (svg.CLAY, "P"), (svg.STONE, "X"))


def _style(row: Row, index: int) -> dict[str, Any]:
    if row.name == ORIGINAL:
        return {"color": svg.INK, "marker": "o", "markerfacecolor": svg.PAPER}
    if row.name == RESULT:
        return {"color": svg.MOSS, "marker": "D"}
    colour, marker = _STYLES[index % len(_STYLES)]
    return {"color": colour, "marker": marker}


def _draw_scatter(width: int, key: str, rows: list[Row]) -> Figure:
    narrow = width == NARROW
    legend_columns = 1 if narrow else 2
    below = 58 + 20 * math.ceil(len(rows) / legend_columns)
    height, left, right, top = (250 if narrow else 290) + below, 44, 12, 34
    figure = canvas(width, height)
    axes = figure.add_axes(
        (left / width, below / height, (width - left - right) / width, (height - below - top) / height)
    )
    costs = [_cost(row, key) for row in rows]
    most = max(high for _, _, high in costs) * 1.08 or 1.0
    scale, prefix = (1.0, "") if key == "latency" else _prefix(most)
    axes.set_xlim(0, most / scale)
    ends = [words.interval(row) for row in rows]
    low = min(min(e[0] for e in ends), min(row.accuracy for row in rows))
    high = max(max(e[1] for e in ends), max(row.accuracy for row in rows))
    room = 0.08 * max(high - low, 0.5)
    axes.set_ylim(low - room, high + room)
    place = 9 * most / scale / (width - left - right)
    for i, (row, cost, shift) in enumerate(zip(rows, costs, _shifts([c[0] for c in costs]), strict=True)):
        middle, cheap, dear = (value / scale for value in cost)
        x = middle + shift * place
        style = _style(row, i)
        axes.vlines(x, *words.interval(row), color=style["color"], linewidth=1.4)
        axes.hlines(row.accuracy, cheap + shift * place, dear + shift * place, color=style["color"], linewidth=1.4)
        label = shorten(row.name, 44 if narrow else 48)
        axes.plot([x], [row.accuracy], linestyle="", markersize=9, markeredgewidth=1.6, zorder=3, label=label, **style)
    axes.set_title("accuracy on test pictures, %", x=-left / (width - left - right) + 0.004)
    axes.set_xlabel("latency, ms" if key == "latency" else f"MACs, {prefix}" if prefix else "MACs", loc="right")
    axes.yaxis.set_major_locator(ticks(5))
    axes.xaxis.set_major_locator(ticks(4 if narrow else 7))
    figure.legend(
        loc="lower left",
        bbox_to_anchor=(left / width - 0.02, 0),
        ncols=legend_columns,
        handletextpad=0.4,
        columnspacing=2.4,
        borderaxespad=0.2,
    )
    return figure


def _prefix(most: float) -> tuple[float, str]:
    names = ((1e12, "trillions"), (1e9, "billions"), (1e6, "millions"), (1e3, "thousands"))
    return next(((scale, name) for scale, name in names if most >= scale), (1.0, ""))


def ticks(count: int) -> Locator:
    """Return about so many places for numbers that are easy to read."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(count, steps=[1, 2, 2.5, 5, 10])


def training(results: Results) -> Picture | None:
    """Draw accuracy and loss over the epochs; None where nothing was trained."""
    epochs = results.training
    if not epochs:
        return None
    known = [e.val_accuracy for e in epochs if _finite(e.val_accuracy) is not None]
    told = (
        f" Validation accuracy goes from {units.percent(known[0] or 0)} to {units.percent(known[-1] or 0)}, at best "
        f"{units.percent(max(a for a in known if a is not None))}."
        if known
        else ""
    )
    before = results.validation.before if results.validation else None
    caption = "Accuracy on pictures kept back for validation, epoch by epoch."
    caption += " Dashed: the original network." if before is not None else ""
    caption += " Loss: what training makes small; on training pictures with all that teaches, such as the original's "
    caption += "answers, on validation pictures without, so that the two lines need not meet."
    if any(later.epoch <= earlier.epoch for earlier, later in pairwise(epochs)):
        caption += " Upright line: another training begins."
    return picture(
        "training",
        lambda width: _draw_training(width, epochs, before),
        f"Training curves over {len(epochs)} {'epoch' if len(epochs) == 1 else 'epochs'}.{told}",
        caption,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _draw_training(width: int, epochs: list[Epoch], before: float | None) -> Figure:
    narrow = width == NARROW
    height = 480 if narrow else 280
    figure = canvas(width, height)
    upper, lower = (figure.add_subplot(*((2, 1) if narrow else (1, 2)), i) for i in (1, 2))
    figure.subplots_adjust(
        left=44 / width,
        right=1 - 10 / width,
        top=1 - 30 / height,
        bottom=44 / height,
        hspace=0.42,
        wspace=0.2,
    )
    # Epochs are counted through, since a run may train several times and begin each at one.
    x = list(range(1, len(epochs) + 1))
    marker = "o" if len(epochs) <= 12 else ""
    look = {"linewidth": 1.8, "marker": marker, "markersize": 4.5}
    _line(upper, x, [e.val_accuracy for e in epochs], color=svg.MOSS, **look)
    if before is not None:
        upper.axhline(before, color=svg.INK, linewidth=1.2, dashes=(4, 3))
    _within_percent(upper)
    upper.set_title("validation accuracy, %", x=-44 / (width if narrow else width * 0.42))
    _line(lower, x, [e.loss for e in epochs], color=svg.STONE, label="training", **look)
    _line(lower, x, [e.val_loss for e in epochs], color=svg.CLAY, label="validation", **look | {"linestyle": "--"})
    lower.set_title("loss", x=-44 / (width if narrow else width * 0.42))
    lower.set_ylim(bottom=min(0.0, lower.get_ylim()[0]))
    # Above the curves, since there is no corner that they could not run through.
    lower.legend(loc="lower right", bbox_to_anchor=(1, 1.0), ncols=2, borderaxespad=0, handlelength=1.6)
    for axes in (upper, lower):
        axes.set_xlim(0.6, len(epochs) + 0.4)
        axes.set_xlabel("epoch", loc="right")
        axes.xaxis.set_major_locator(whole_ticks(1, len(epochs)))
        axes.yaxis.set_major_locator(ticks(5))
        for i in range(1, len(epochs)):
            if epochs[i].epoch <= epochs[i - 1].epoch:
                axes.axvline(i + 0.5, color=svg.LINE, linewidth=1.2)
    return figure


def _within_percent(axes: Axes) -> None:
    """Keep an axis of accuracies from promising more than all of them."""
    low, high = axes.get_ylim()
    room = 0.04 * max(100 - low, 1.0)
    axes.set_ylim(max(low, -room), min(high, 100 + room))


def _line(axes: Axes, x: list[int], values: list[float | None], **look: Any) -> None:
    y = [math.nan if _finite(value) is None else float(value or 0) for value in values]
    if not all(math.isnan(value) for value in y):
        axes.plot(x, y, **look)


def whole_ticks(first: int, last: int) -> Locator:
    """Return places at whole numbers alone, also where there are but one or two."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    return FixedLocator(range(first, last + 1)) if last - first < 7 else MaxNLocator(7, integer=True)
