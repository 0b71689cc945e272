"""Why it is not faster: where the time goes, what holds it, and what would help, for the terminal and for the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from penjing.core.console import table
from penjing.core.errors import RecipeError
from penjing.report import light, units
from penjing.report.results import Results, read
from penjing.report.spent import Half, Layer, Spending
from penjing.report.table import plain
from penjing.steps.sides import Finding

_SHOWN = 40
"""Layers in the table of the terminal; the JSON has all."""

_NAMED = 5
"""Layers that a sentence names."""

_NOTHING = 0.0005
"""A smaller share of the time is nothing."""

_UNKNOWN, _NONE = "not known", "nothing"

_ZEROS = 1.01
"""So many times fewer multiplications, by weights that are zero, are worth a word."""


@dataclass(frozen=True)
class Cause:
    """One cause, where it was found, and what all its remedies bring, in ms."""

    name: str
    where: tuple[str, ...]
    brings: float


def causes(spending: Spending) -> list[Cause]:
    """Return the causes, what brings most first."""
    names = dict.fromkeys(one.cause for one in spending.findings)
    some = {name: [one for one in spending.findings if one.cause == name] for name in names}
    found = [
        Cause(name, tuple(o.where for o in ones), sum(o.brings or 0.0 for o in ones)) for name, ones in some.items()
    ]
    return sorted(found, key=lambda cause: -cause.brings)


@dataclass(frozen=True)
class Group:
    """Places of which the same is to say; ``brings`` is what all of them bring together, in ms, None if unknown."""

    where: tuple[str, ...]
    cause: str
    detail: str
    remedy: str
    brings: float | None


def grouped(spending: Spending) -> list[Group]:
    """Return the findings, those alike together, what brings most first and what is unknown last."""
    found: dict[tuple[str, str, str], list[Finding]] = {}
    for one in spending.findings:
        found.setdefault((one.cause, one.detail, one.remedy), []).append(one)
    groups = []
    for (cause, detail, remedy), ones in found.items():
        known = [one.brings for one in ones if one.brings is not None]
        groups.append(Group(tuple(o.where for o in ones), cause, detail, remedy, sum(known) if known else None))
    return sorted(groups, key=lambda group: -math.inf if group.brings is None else group.brings, reverse=True)


def brings(group: Group, spending: Spending) -> str:
    """Say what a remedy is predicted to bring.

    >>> nothing = Spending("x", "measured", 2, 1, 1, 1, [], [], [], [], 0.1)
    >>> brings(Group(("a",), "odd width", "", "", 0.25), nothing).replace(units.GAP, " ")
    '0.250 ms (25 %)'
    """
    if group.brings is None:
        return _UNKNOWN
    if group.brings <= _NOTHING * spending.after_ms:
        return _NONE
    return f"{units.quantity(group.brings, 'ms')} ({_share(group.brings, spending)})"


def summary(spending: Spending, results: Results) -> list[str]:
    """Say in sentences what was hoped for, what came, and what holds it."""
    lines = [_gain(spending)]
    if spending.note:
        lines.append(spending.note if spending.note.endswith(".") else f"{spending.note}.")
    if spending.how != "whole":
        lines += [*_fixed(spending), *_kept(spending, results), *_causes(spending)]
    return [*lines, light.summary(results.lightened)] if results.lightened else lines


def _gain(spending: Spending) -> str:
    first, second = units.apart(spending.before_ms, spending.after_ms, "ms")
    work, time = _times(spending.before_macs, spending.after_macs), _times(spending.before_ms, spending.after_ms)
    if work is None or time is None:
        return f"The time went from {first} to {second}, {spending.source}."
    real = (
        work * _nonzero(layer.before for layer in spending.layers) / _nonzero(layer.after for layer in spending.layers)
    )
    zeros = f", {units.times(real)} without those by zero" if real > work * _ZEROS else ""
    verdict = "time followed the work" if time >= real / (1 + spending.noise) else "time lags behind the work"
    return (
        f"{units.times(work)} fewer MACs{zeros}, {units.times(time)} as fast: {first} before, {second} after, "
        f"{spending.source}; {verdict}."
    )


def _nonzero(halves: Iterable[Half | None]) -> float:
    """Return the share of the MACs that are not by zero; all where nothing is known of any, or all are by zero."""
    known = [half for half in halves if half is not None]
    work, macs = sum(half.work for half in known), sum(half.macs for half in known)
    return work / macs if work and macs else 1.0


def _times(before: float, after: float) -> float | None:
    return before / after if before > 0 and after > 0 else None


def _fixed(spending: Spending) -> list[str]:
    """Say how much of the time no cut has touched, and what that allows at most."""
    uncut = sum(layer.after_ms for layer in spending.layers if layer.name in spending.uncut)
    between = sum(one.after_ms for one in spending.others)
    parts = []
    if uncut:
        parts.append(f"layers that were not cut take {_share(uncut, spending)} of the time after")
    if between:
        parts.append(f"what runs between the layers takes {_share(between, spending)}")
    if not parts:
        return []
    most = _times(spending.before_ms, uncut + between)
    limit = f": with all else gone it would be {units.times(most)} as fast as the original" if most else ""
    said = " and ".join(parts)
    return [f"{said[0].upper()}{said[1:]}{limit}."]


def _share(ms: float, spending: Spending) -> str:
    return f"{units.significant(100 * ms / spending.after_ms, 2)}{units.GAP}%"


def _kept(spending: Spending, results: Results) -> list[str]:
    """Name the layers that were not cut and take the most, and those of them that were pinned."""
    uncut = [layer for layer in spending.layers if layer.name in spending.uncut and layer.after_ms > 0]
    if not uncut:
        return []
    uncut.sort(key=lambda layer: -layer.after_ms)
    why = {one.where: one.why for one in results.pinned}
    told = [f"{layer.name}{f' (pinned: {why[layer.name]})' if layer.name in why else ''}" for layer in uncut[:_NAMED]]
    more = f" and {len(uncut) - _NAMED} more" if len(uncut) > _NAMED else ""
    return [f"Not cut, by their time: {', '.join(told)}{more}."]


def _causes(spending: Spending) -> list[str]:
    if not spending.findings:
        return ["No layer lags behind its work."]
    lines = []
    for cause in causes(spending):
        where = (
            f"{', '.join(cause.where[:_NAMED])}{f' and {len(cause.where) - _NAMED} more' * (len(cause.where) > _NAMED)}"
        )
        gain = f": remedies bring {units.quantity(cause.brings, 'ms')} ({_share(cause.brings, spending)})"
        lines.append(f"{cause.name[0].upper()}{cause.name[1:]} ({where}){gain if cause.brings > 0 else ''}.")
    return lines


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a run's network is not faster. Print it, or read it.

    ``summary`` are sentences; ``spending`` has the time of every ``layer`` and ``other`` operator before and after, and
    each finding by itself; ``causes`` come by what their remedies bring together, and ``remedies`` by what one brings.
    """

    summary: Sequence[str]
    spending: Spending

    @property
    def causes(self) -> list[Cause]:
        """The causes by name, what brings most first."""
        return causes(self.spending)

    @property
    def remedies(self) -> list[Group]:
        """The findings, those alike together, what brings most first."""
        return grouped(self.spending)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain JSON data."""
        told = {"summary": list(self.summary), **asdict(self.spending)}
        return {**told, "causes": [asdict(cause) for cause in self.causes]}

    def __str__(self) -> str:
        """Return it as text in the signs that every terminal has."""
        parts = ["\n".join(self.summary)]
        if self.spending.layers:
            parts.append(_layers(self.spending))
        if others := self.spending.others:
            rows = [[one.operator, one.kind or "-", _ms(one.before_ms), _ms(one.after_ms)] for one in others]
            parts.append(table("Between the layers", ["operator", "kind", "before", "after"], rows))
        parts += [_said(group, self.spending) for group in self.remedies]
        return plain("\n\n".join(parts))


def explained(results: Mapping[str, Any]) -> Explanation:
    """Return why a run's network is not faster.

    Raises: RecipeError naming the key of the results that is missing or wrong, and for results that do not tell.
    """
    checked = read(results)
    if checked.spending is None:
        raise RecipeError(
            "These results do not tell where the time goes; they are from an older penjing. Run it again."
        )
    return Explanation(summary(checked.spending, checked), checked.spending)


def _said(group: Group, spending: Spending) -> str:
    gain = brings(group, spending)
    together = " together" if len(group.where) > 1 and gain not in (_UNKNOWN, _NONE) else ""
    return (
        f"{', '.join(group.where)}: {group.cause}. {group.detail[0].upper()}{group.detail[1:]}.\n"
        f"  Remedy: {group.remedy}.\n  Predicted to bring: {gain}{together}."
    )


def _layers(spending: Spending) -> str:
    causes_of = {one.where: one.cause for one in spending.findings}
    order = sorted(spending.layers, key=lambda layer: (-layer.lost_ms, -layer.after_ms))
    rows = [[*cells(layer, spending.layers), causes_of.get(layer.name, "")] for layer in order[:_SHOWN]]
    header = ["layer", "fewer MACs", "before", "after", "predicted", "measured", "cause"]
    more = f"\n({len(order) - _SHOWN} more layers: --json)" if len(order) > _SHOWN else ""
    return table("Layers, by the time lost", header, rows) + more


def cells(layer: Layer, every: Sequence[Layer] = ()) -> list[str]:
    """Return a layer's name, how much less it computes, its times, and its gains, as text.

    One that is a chain now has the time of its stages, which are among ``every``.
    """
    stages = [one for one in every if one.name.startswith(f"{layer.name}.") and one.before is None]
    gains = (layer.work_gain, layer.predicted_gain, layer.measured_gain)
    work, predicted, measured = ("-" if gain is None else units.times(gain) for gain in gains)
    before = _ms(layer.before.ms) if layer.before else "-"
    after = _ms(layer.after.ms) if layer.after else "removed"
    if stages and not layer.after:
        after = f"{_ms(sum(one.after_ms for one in stages))} in {len(stages)}"
    return [layer.name, work, before, after, predicted, measured]


def _ms(ms: float) -> str:
    return units.quantity(ms, "ms")


def rows(spending: Spending | None) -> list[tuple[Group, str]]:
    """Return what is found with what its remedy brings, for the page."""
    return [] if spending is None else [(group, brings(group, spending)) for group in grouped(spending)]
