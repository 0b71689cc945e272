"""Which sites lose most for what they save: a table of every cut, and small curves of the sites that were measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penjing.report import svg, units, words
from penjing.report.plots import NARROW, Picture, canvas, picture, shorten, ticks
from penjing.report.results import Results
from penjing.report.sensed import Foretold, Sensed, Sensitivity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN = 20
"""Sites in a table; results.json has all."""

_PANELS = 12
"""Sites that are drawn."""

_NAMED = 5
"""Sites that a sentence names."""

_DEAR = 1.1
"""A ratio from which a site is called dear; below, it may be rounding."""

_MEANS = {"measured": "single sites", "both": "the mean of both"}


@dataclass(frozen=True)
class Line:
    """A site of the table, as text: what stays, what goes of its score, its parts of loss and saving, and their ratio.

    ``expected`` is what measuring the site alone tells of the loss, where it was measured.
    """

    site: str
    kept: str
    score: str
    expected: str
    part: str
    saves: str
    ratio: str
    dear: bool


@dataclass(frozen=True)
class Told:
    """One cut: what is to say of it, its table, and its figure where sites were measured."""

    title: str
    sentences: list[str]
    cost: str
    measured: bool
    lines: list[Line]
    picture: Picture | None


def sensitivities(results: Results) -> list[Told]:
    """Tell of each cut of the run."""
    return [_told(one, results, i) for i, one in enumerate(results.sensitivity) if one.sites]


def is_measured(cut: Sensitivity) -> bool:
    """Tell whether measurements say what the cut loses: those of every site that was cut, and not nothing in all."""
    found = [site.expected for site in cut.sites if site.kept < site.size]
    return None not in found and sum(value or 0.0 for value in found) > 0


def losses(cut: Sensitivity) -> list[float]:
    """Return what each site loses, in one unit: as measured, or else as scored; never below nothing."""
    measured = is_measured(cut)
    return [max((site.expected or 0.0) if measured else site.lost, 0.0) for site in cut.sites]


def ratios(cut: Sensitivity) -> list[float]:
    """Return how many times more of the loss than of the saving each site has; what saves nothing has infinitely more.

    A site that was left whole has 0.

    >>> sites = [Sensed("a", "channels", 8, 4, 8, 3, 0.1), Sensed("b", "channels", 8, 4, 8, 1, 0.3)]
    >>> [round(ratio, 2) for ratio in ratios(Sensitivity("p", "macs", sites))]
    [3.0, 0.33]
    """
    lost, saved = losses(cut), [max(site.saves, 0.0) for site in cut.sites]
    found = []
    for mine, site, gain in zip(lost, cut.sites, saved, strict=True):
        if site.kept == site.size or not mine:
            found.append(0.0)
        else:
            found.append(mine / sum(lost) / (gain / sum(saved)) if gain else math.inf)
    return found


def _told(cut: Sensitivity, results: Results, index: int) -> Told:
    lost, by = losses(cut), ratios(cut)
    smaller = [i for i, site in enumerate(cut.sites) if site.kept < site.size]
    order = sorted(smaller, key=lambda i: (-by[i], -lost[i]))
    lines = [_line(cut, i, lost, by) for i in order[:_SHOWN]]
    drawn = sorted((s for s in cut.sites if s.measured), key=lambda s: -max(one.loss for one in s.measured))
    several = len(results.sensitivity) > 1
    return Told(
        title=words.step(cut.step).replace("step", "Step", 1) if several else "",
        sentences=[*_sentences(cut, order, by), *_foretold(cut, results), *_left_out(cut, order)],
        cost=words.LABELS.get(cut.cost, cut.cost),
        measured=any(site.expected is not None for site in cut.sites),
        lines=lines,
        picture=_picture(cut, drawn, index) if drawn else None,
    )


def _line(cut: Sensitivity, i: int, lost: Sequence[float], by: Sequence[float]) -> Line:
    site, total = cut.sites[i], sum(lost)
    return Line(
        site=site.site,
        kept=f"{site.kept:,} of {site.size:,}",
        score=_percent(site.lost / site.score) if site.score > 0 and site.lost >= 0 else "–",
        expected="–" if site.expected is None else _amount(max(site.expected, 0.0), cut.unit),
        part=_percent(lost[i] / total) if total else "–",
        saves=_percent(site.saves),
        ratio="nothing saved" if math.isinf(by[i]) else f"{by[i]:.2f}" if by[i] < 10 else units.significant(by[i]),
        dear=by[i] >= _DEAR,
    )


def _percent(share: float) -> str:
    return f"{units.significant(100 * share, 2)}{units.GAP}%" if abs(share) >= 5e-4 else f"0{units.GAP}%"


def _amount(value: float, unit: str) -> str:
    if not value:
        return "none"
    return f"{units.significant(value, 2)}{units.GAP}points" if unit == "%" else units.quantity(value, unit, 2)


def _sentences(cut: Sensitivity, order: Sequence[int], by: Sequence[float]) -> list[str]:
    """Say what the numbers are, and which sites stand out."""
    what = words.LABELS.get(cut.minimise, cut.minimise)
    found = []
    if any(site.measured for site in cut.sites) and cut.whole is not None:
        whole = units.quantity(cut.whole, cut.unit)
        found.append(f"Sites were cut alone, all others whole, and {what} was measured; without a cut it is {whole}.")
    if not is_measured(cut):
        why = "At the counts chosen no site alone was found to lose anything" if found else "No site was measured alone"
        found.append(f"{why}, so that the criterion's scores tell the loss.")
    dear = [cut.sites[i].site for i in order if by[i] >= _DEAR]
    if dear:
        found.append(f"Larger part of the loss than of the saving: {_names(dear)}.")
    return found


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _foretold(cut: Sensitivity, results: Results) -> list[str]:
    """Say how well the losses that were tried foretold whole plans, and whose plan was taken."""
    search = next((one for one in reversed(results.searches) if one.step == cut.step and one.losses), None)
    if search is None:
        return [f"{cut.said[0].upper()}{cut.said[1:].rstrip('.')}."] if cut.said else []
    ranks = ", ".join(f"{_rank(one)} by {_means(one)}" for one in search.losses)
    over = f"{search.foretold} whole plans were" if search.foretold else "Whole plans were"
    found = f"{over} measured and their losses foretold; the rank correlation is {ranks}."
    taken = [one for one in search.losses if one.taken]
    if len(search.losses) > 1:
        best = f"The best plan was found by {_means(taken[0])}" if taken else "The best of those plans was taken itself"
        found += f" {best}."
    return [found]


def _rank(one: Foretold) -> str:
    return f"{one.rank:.2f}".replace("-", "−")


def _means(one: Foretold) -> str:
    return _MEANS.get(one.by, one.by)


def _left_out(cut: Sensitivity, order: Sequence[int]) -> list[str]:
    whole = [site.site for site in cut.sites if site.kept == site.size]
    found = [f"Left whole: {_names(whole)}."] if whole else []
    if len(order) > _SHOWN:
        found.append(f"The table has the {_SHOWN} sites of {len(order)} that lose most for what they save.")
    return found


# ------------------------------------------------------------------------------------------------------ the figure


def _picture(cut: Sensitivity, sites: Sequence[Sensed], index: int) -> Picture:
    shown = sites[:_PANELS]
    what = words.LABELS.get(cut.minimise, cut.minimise)
    unit = "points" if cut.unit == "%" else cut.unit
    listed = "; ".join(
        f"{site.site}: "
        + ", ".join(f"{_amount(one.loss, cut.unit)} with {one.kept:,} of {site.size:,}" for one in site.measured)
        for site in shown
    )
    caption = (
        f"By how much {what} rises ({unit}) where one site alone keeps this share of its units, on one scale, the most "
        "sensitive first. Dot: measured. Diamond on the upright line: what was chosen."
    )
    if len(sites) > len(shown):
        caption += f" Drawn are {len(shown)} of {len(sites)} sites."
    alt = f"Small curves of {what} against units kept at {len(shown)} sites. {listed}."
    return picture(f"sensitivity{index}", lambda width: _draw(width, shown), alt, caption)


def _draw(width: int, sites: Sequence[Sensed]) -> Figure:
    across = min(2 if width == NARROW else 4, len(sites))
    rows = -(-len(sites) // across)
    pitch, left, right, gap, above, below = 132, 34, 8, 20, 26, 22
    figure = canvas(width, pitch * rows)
    each = (width - left - right - gap * (across - 1)) / across if across > 2 else (width - left - right - gap) / 2
    if width != NARROW:
        each = min(each, 172)
    values = [one.loss for site in sites for one in site.measured]
    low, high = min(0.0, *values), max(0.0, *values)
    room = 0.08 * ((high - low) or 1.0)
    for i, site in enumerate(sites):
        row, column = divmod(i, across)
        x, y = left + column * (each + gap), pitch * (rows - row) - above - (pitch - above - below)
        axes = figure.add_axes((x / width, y / (pitch * rows), each / width, (pitch - above - below) / (pitch * rows)))
        _panel(axes, site, int(each // 6.6))
        axes.set_ylim(low - room, high + room)
        axes.yaxis.set_major_locator(ticks(3))
        axes.tick_params(axis="y", labelleft=column == 0)
    return figure


def _panel(axes: Axes, site: Sensed, letters: int) -> None:
    dots = {100 * one.kept / site.size: one.loss for one in site.measured}
    line = {**dots, 100.0: 0.0}
    if site.expected is not None and site.kept < site.size:
        line.setdefault(100 * site.kept / site.size, site.expected)
    axes.plot(sorted(line), [line[x] for x in sorted(line)], color=svg.MOSS, linewidth=1.6)
    axes.plot(list(dots), list(dots.values()), linestyle="", marker="o", markersize=4.5, color=svg.MOSS)
    chosen = 100 * site.kept / site.size
    axes.axvline(chosen, color=svg.CLAY, linewidth=1.2, dashes=(4, 3), zorder=1)
    axes.plot([chosen], [line.get(chosen, 0.0)], linestyle="", marker="D", markersize=6, color=svg.CLAY,
              markerfacecolor=svg.PAPER, markeredgewidth=1.5, zorder=3)  # fmt: skip
    axes.set_title(shorten(site.site, letters), color=svg.INK, pad=7)
    axes.set_xlim(-4, 104)
    axes.set_xticks([0, 50, 100], ["0", "50", "100 %"])
