"""Networks that answer early, in words and as a table: how good each exit is, who leaves there, and what that saves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penjing.report import units
from penjing.report.ratio import Ratio


@dataclass(frozen=True)
class Exit:
    """An exit, or the end of the network: accuracy of all pictures there in percent, and the share that leaves there.

    ``threshold`` is None at the end, and where an exit was taken away again; ``ms`` is the measured latency and
    ``macs`` the work of a picture that leaves there with all exits in place, at the end that of the network alone.
    """

    accuracy: float
    share: float
    ms: float
    macs: float
    layer: str = ""
    threshold: float | None = None


@dataclass(frozen=True)
class Leaving:
    """What exits brought on ``pictures`` of validation: accuracies in percent, and MACs of a picture on average."""

    exits: list[Exit]
    end: Exit
    together: float
    early: float
    pictures: int
    drop: float
    macs: float
    measured_on: int
    latency: dict[str, dict[str, Any]] = field(default_factory=dict)
    ratio: Ratio | None = None


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    where: str
    accuracy: str
    threshold: str
    share: str
    latency: str
    macs: str


def lines(found: Leaving) -> list[Line]:
    """Return a row an exit, and one for the end of the network."""
    named = [(f"behind {one.layer}", one, "taken away") for one in found.exits]
    return [
        Line(
            where,
            units.percent(one.accuracy),
            otherwise if one.threshold is None else units.significant(one.threshold, 4),
            _share(one.share),
            units.quantity(one.ms, "ms"),
            units.quantity(one.macs, "MAC"),
        )
        for where, one, otherwise in [*named, ("the network's own end", found.end, "–")]
    ]


def summary(found: Leaving) -> list[str]:
    """Say what answering early keeps and saves."""
    end = units.percent(found.end.accuracy)
    told = [
        f"Of {found.pictures:,} validation pictures, {units.percent(found.early)} are answered rightly with exits, "
        f"{end} without; the mean of all exits' scores would answer {units.percent(found.together)}."
    ]
    if found.ratio is None:
        return [*told, "No exit saves time at the accuracy that was asked for, so that the network has none."]
    early, whole = (found.latency[name]["median_ms"] for name in ("early", "whole"))
    first, second = units.apart(whole, early, "ms")
    span = units.span(found.ratio.low, found.ratio.high)
    return [
        *told,
        f"Measured on {found.measured_on} of them, one after the other: {first} a picture without exits, {second} on "
        f"average with them, {units.times(found.ratio.median)} as fast ({span}); {units.quantity(found.macs, 'MAC')} "
        f"on average instead of {units.quantity(found.end.macs, 'MAC')}.",
        "Latency and MACs of this network everywhere on this page are such averages; other pictures may take longer.",
    ]


def _share(share: float) -> str:
    """Return a share in percent.

    >>> _share(0.25).replace(units.GAP, " ")
    '25.0 %'
    """
    return f"{100 * share:.1f}{units.GAP}%"


def told(found: list[Leaving]) -> Mapping[str, Any]:
    """Return what the page says of exits; nothing where there are none."""
    return {"leaving": lines(found[-1]), "left": summary(found[-1])} if found else {"leaving": [], "left": []}
