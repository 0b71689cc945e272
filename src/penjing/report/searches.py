"""What a search tried: each candidate a dot, the best so far a line, and a sentence on how it went."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from penjing.report import svg, units, words
from penjing.report.plots import NARROW, Picture, canvas, picture, ticks, whole_ticks
from penjing.report.results import Results, Search, Trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DOTS = 400
"""At most so many dots are drawn; more would cover one another, and make the page heavy."""


@dataclass(frozen=True)
class Told:
    """One search: what it was, how it went, and its figure where it left trials behind."""

    title: str
    text: str
    picture: Picture | None


def searches(results: Results) -> list[Told]:
    """Tell of each search of the run; none where none was made."""
    known = {search.step for search in results.searches}
    untold = {trial.step: Search(trial.step, minimise=trial.minimise) for trial in results.trials}
    found = [*results.searches, *(search for step, search in untold.items() if step not in known)]
    left = {step: [trial for trial in results.trials if trial.step == step] for step in untold}
    told = []
    for i, search in enumerate(found):
        mine = left.get(search.step, [])
        # A step may search again and again; its trials are counted through, each search taking its own.
        again = any(later.step == search.step for later in found[i + 1 :])
        count = len(mine) if search.tried is None or not again else search.tried
        left[search.step] = mine[count:]
        told.append(_told(search, [replace(t, minimise=t.minimise or search.minimise) for t in mine[:count]], i))
    return told


def best_so_far(trials: list[Trial]) -> list[float | None]:
    """Return, for each trial, the least value that kept all bounds until then.

    >>> pairs = enumerate([(5, False), (4, True), (6, True)])
    >>> best_so_far([Trial("p", i, {"error": error}, "error", met) for i, (error, met) in pairs])
    [None, 4, 4]
    """
    best: float | None = None
    line = []
    for trial in trials:
        if trial.met and trial.value is not None:
            best = trial.value if best is None else min(best, trial.value)
        line.append(best)
    return line


def _told(search: Search, trials: list[Trial], index: int) -> Told:
    known = [trial for trial in trials if trial.value is not None]
    minimise = search.minimise or (trials[0].minimise if trials else "")
    what, unit = words.LABELS.get(minimise, minimise), search.unit or words.UNITS_OF.get(minimise, "")
    title = words.step(search.step).replace("step", "Step", 1) + (f": {search.allocator}" if search.allocator else "")
    text = _sentences(search, trials, what, unit)
    if not known:
        return Told(title, text, None)
    best = best_so_far(known)
    alt = (
        f"Scatter of {what} over {len(known)} {'trial' if len(known) == 1 else 'trials'}, best so far as a line. {text}"
    )
    thinned = f" Of {len(known):,} trials {_DOTS} are drawn." if len(known) > _DOTS else ""
    caption = f"{what[:1].upper()}{what[1:]} of each trial, in the order tried; lower is better."
    if any(trial.met is not None for trial in known):
        caption += " Filled dot: keeps every bound. Hollow dot: breaks one. Line: the best so far that keeps all."
    if any(trial.met is None for trial in known):
        caption += " Triangle: whether it keeps the bounds is not told."
    caption += thinned
    drawn = picture(f"search{index}", lambda width: _draw(width, known, best, what, unit), alt, caption)
    return Told(title, text, drawn)


def _sentences(search: Search, trials: list[Trial], what: str, unit: str) -> str:
    tried = search.tried if search.tried is not None else len(trials)
    parts = [f"{tried:,} {'candidate was' if tried == 1 else 'candidates were'} tried"]
    if search.evaluated is not None and search.evaluated != tried:
        parts.append(f"{search.evaluated:,} of them worked out in full")
    if what:
        parts.append(f"to make {what} as small as possible")
    if search.seconds is not None:
        parts.append(f"in {units.duration(search.seconds)}")
    text = f"{', '.join(parts)}."
    if any(trial.met is not None for trial in trials):
        best = min((t for t in trials if t.met and t.value is not None), key=lambda t: t.value or 0.0, default=None)
        kept = sum(trial.met is True for trial in trials)
        text += f" {kept:,} of {len(trials):,} kept every bound"
        if best is not None and best.value is not None:
            text += f"; the best of these was trial {best.trial}, with {what} {units.quantity(best.value, unit)}"
        text += "."
    if isinstance(search.stopped, str) and search.stopped:
        text += f" It stopped: {search.stopped.rstrip('.')}."
    elif search.stopped is True:
        text += " It was stopped by hand, and the best so far was taken."
    return text


def _draw(width: int, trials: list[Trial], best: list[float | None], what: str, unit: str) -> Figure:
    narrow = width == NARROW
    height, left = 250 if narrow else 280, 56
    figure = canvas(width, height)
    axes = figure.add_axes((left / width, 44 / height, (width - left - 12) / width, (height - 78) / height))
    every = math.ceil(len(trials) / _DOTS)
    for met, marker, fill, edge in (
        (None, "^", svg.STONE, svg.STONE), (False, "o", svg.PAPER, svg.CLAY), (True, "o", svg.MOSS, svg.MOSS),
    ):  # fmt: skip
        some = [trial for trial in trials[::every] if trial.met is met]
        axes.plot(
            [trial.trial for trial in some],
            [trial.value or 0.0 for trial in some],
            linestyle="",
            marker=marker,
            markersize=5,
            markerfacecolor=fill,
            markeredgecolor=edge,
        )
    line = [(trial.trial, value) for trial, value in zip(trials, best, strict=True) if value is not None]
    if line:
        axes.step([x for x, _ in line], [y for _, y in line], where="post", color=svg.INK, linewidth=1.6)
    axes.set_title(f"{what}, {unit}" if unit else what, x=-left / (width - left - 12) + 0.004)
    axes.set_xlabel("trial", loc="right")
    first, last = trials[0].trial, trials[-1].trial
    room = 0.03 * max(last - first, 1) + 0.4
    axes.set_xlim(first - room, last + room)
    axes.xaxis.set_major_locator(whole_ticks(first, last))
    axes.yaxis.set_major_locator(ticks(5))
    return figure
