"""Bars of before and after: the units of each site, and the time of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

from penjing.report import few_bits, svg, units
from penjing.report.plots import NARROW, WIDE, Picture, canvas, drawn, shorten
from penjing.report.results import Results, Width
from penjing.report.spent import Spending

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TOGETHER = 12
"""Bars are drawn in strips of so many, since a page of paper can only break between two drawings."""

_LEAST = 0.005
"""Layers with less of the time, before and after, share one bar."""


@dataclass(frozen=True)
class Bar:
    """One name with what there was and is of it, and these numbers in words."""

    name: str
    before: float
    after: float
    told: str


def widths(results: Results) -> list[Picture]:
    """Draw the units of every site before and after, one figure for each kind of site."""
    pictures: list[Picture] = []
    for kind, group in groupby(sorted(results.sites, key=lambda site: site.kind), key=lambda site: site.kind):
        sites = list(group)
        kind = f"ranks of {kind}" if any(site.error is not None for site in sites) else kind
        if all(site.site.endswith(few_bits.SITE) for site in sites):
            pictures.append(_bits(f"widths-{len(pictures)}", kind, sites))
            continue
        bars = [Bar(s.site, s.before, s.after, f"{s.before:,} → {s.after:,}{_off(s)}") for s in sites]
        listed = "; ".join(f"{site.site}: {site.before:,} to {site.after:,}{_off(site)}" for site in sites)
        before, after = sum(site.before for site in sites), sum(site.after for site in sites)
        where = f"at {len(sites):,} {'site' if len(sites) == 1 else 'sites'}"
        pictures.append(
            _picture(
                f"widths-{len(pictures)}",
                bars,
                f"Horizontal bars of {kind} before and after {where}. {listed}.",
                f"{kind.capitalize()} {where}: {before:,} before, {after:,} after. Pale bar: before. Solid bar: after; "
                "grey where nothing was removed. A site bears the name of the layer that makes it.",
            )
        )
    return pictures


def _bits(key: str, method: str, sites: Sequence[Width]) -> Picture:
    """Draw the bits of a weight of each layer before and after."""
    bars = [Bar(s.site.removesuffix(few_bits.SITE), s.before, s.after, few_bits.changed(s.before, s.after))
            for s in sites]  # fmt: skip
    listed = "; ".join(f"{bar.name}: {bar.told.replace('→', 'to')}" for bar in bars)
    where = f"{len(sites):,} {'layer' if len(sites) == 1 else 'layers'}"
    return _picture(
        key,
        bars,
        f"Horizontal bars of the bits of a weight before and after in {where}, by {method}. {listed}.",
        f"Bits of a weight in {where}, by {method}. Pale bar: before. Solid bar: after; grey where a layer stays in "
        "floats.",
    )


def _off(site: Width) -> str:
    """Say how far a factorised layer's weights are from what they were."""
    return "" if site.error is None else f", {site.error:.0%} off"


def times(spending: Spending | None) -> Picture | None:
    """Draw the time of every layer before and after; None where nothing is known of layers."""
    if spending is None or not spending.layers:
        return None
    bars = [_timed(layer.name, layer.before_ms, layer.after_ms) for layer in spending.layers]
    bars += [_timed(f"all {one.operator}", one.before_ms, one.after_ms) for one in spending.others]
    least = [_LEAST * spending.before_ms, _LEAST * spending.after_ms]
    shown = [bar for bar in bars if bar.before >= least[0] or bar.after >= least[1]]
    rest = [bar for bar in bars if bar not in shown]
    if rest:
        shown.append(_timed("all others", sum(bar.before for bar in rest), sum(bar.after for bar in rest)))
    listed = "; ".join(f"{bar.name}: {bar.told.replace('→', 'to')}" for bar in shown)
    between = " Bars named “all …” stand for what runs between the layers." if spending.others else ""
    return _picture(
        "times",
        shown,
        f"Horizontal bars of the milliseconds of each layer before and after. {listed}.",
        f"Milliseconds of each layer, in the order of execution, {spending.source}. Pale bar: before. Solid bar: after."
        + between,
    )


def _timed(name: str, before: float, after: float) -> Bar:
    return Bar(name, before, after, f"{units.significant(before, 2)} → {units.significant(after, 2)}")


def _picture(key: str, bars: Sequence[Bar], alt: str, caption: str) -> Picture:
    return Picture(_strips(key, WIDE, bars), _strips(key, NARROW, bars), alt, caption)


def _strips(key: str, width: int, bars: Sequence[Bar]) -> str:
    layout = _Layout.of(width, bars)
    strips = [bars[i : i + _TOGETHER] for i in range(0, len(bars), _TOGETHER)]
    return "".join(
        drawn(f"{key}-{i}", width, partial(_draw, bars=strip, layout=layout)) for i, strip in enumerate(strips)
    )


@dataclass(frozen=True)
class _Layout:
    """Where the bars begin, in pixels, how long a name may be, and the pixels of one unit; alike in all strips."""

    left: float
    letters: int
    scale: float

    @classmethod
    def of(cls, width: int, bars: Sequence[Bar]) -> _Layout:
        # 7 pixels hold a digit or letter of this size in any usual font.
        numbers = 7 * max(len(bar.told) for bar in bars) + 14
        if width == NARROW:
            left, end, letters = 2.0, width - 2.0, (width - numbers) // 7
        else:
            letters = min(max(len(bar.name) for bar in bars), 36)
            left, end = 6.4 * letters + 14, width - numbers
        most = max(max(bar.before, bar.after) for bar in bars)
        return cls(left, letters, (end - left) / (most or 1))


def _draw(width: int, bars: Sequence[Bar], layout: _Layout) -> Figure:
    narrow = width == NARROW
    pitch = 34 if narrow else 20
    figure = canvas(width, pitch * len(bars))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(pitch * len(bars), 0)
    for i, bar in enumerate(bars):
        at, text = (pitch * i + 24, pitch * i + 9) if narrow else (pitch * (i + 0.5), pitch * (i + 0.5))
        colour = svg.STONE if bar.before == bar.after else svg.MOSS
        axes.barh(at, bar.before * layout.scale, height=10, left=layout.left, color=svg.PALE)
        axes.barh(at, bar.after * layout.scale, height=6, left=layout.left, color=colour)
        begin, side = (layout.left, "left") if narrow else (layout.left - 10, "right")
        axes.text(begin, text, shorten(bar.name, layout.letters), ha=side, va="center_baseline")
        axes.text(width - 2, text, bar.told, ha="right", va="center_baseline", color=svg.SOFT)
    return figure
