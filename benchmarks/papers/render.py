"""Tables of the rows that there are, as Markdown, beside what was published."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from papers.published import PEERS, PUBLISHED, Published
from papers.scale import SCALES

Facts = Mapping[str, Any]

NEAR = 2.0
"""How far the removed share of a published figure may be from a row's to stand beside it, in points."""

TITLES = {
    "vgg16": "parameters removed",
    "cifar10": "half the MACs removed",
    "cifar100": "parameters removed",
}


def tables_of(folder: Path) -> str:
    """Return all tables of a scale's folder, with what was made so far."""
    rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    rows = [row for row in rows if "error" not in row]
    twins = {row["twin of"]: row for row in rows if "twin of" in row}
    parts = [_methods(title, table, rows, twins) for table, title in TITLES.items()]
    parts += [_one_shot(kind, rows) for kind in ("channels", "weights")]
    parts.append(_searches(rows))
    return "\n\n".join([_heading(folder.name), *filter(None, parts)])


def _heading(name: str) -> str:
    scale = SCALES.get(name)
    if scale is None:
        return "One shot, no training."
    pictures = "" if scale.pictures is None else f" on {scale.pictures:,} pictures"
    length = f"{scale.epochs} epochs a method{pictures}, its search included" if scale.epochs else "the papers' lengths"
    return f"Scale {name}: {length}; own baselines of {scale.baseline} epochs; seeds {list(scale.seeds)}."


# ------------------------------------------------------------------------------------------------- methods


def _methods(title: str, table: str, rows: Sequence[Facts], twins: Mapping[str, Facts]) -> str:
    """Return the table of methods: each with its twin from scratch and what was published near its share."""
    mine = [row for row in rows if row.get("table") == table]
    if not mine:
        return ""
    lines = []
    for key, group in _grouped(mine, lambda row: (row["method"], *row["asked"].items())).items():
        method, (cost, share) = key
        scratch = [twins[row["row"]]["drop"] for row in group if row["row"] in twins]
        lines.append(
            [
                method,
                _span(row[f"{cost} removed"] for row in group),
                _span(row["drop"] for row in group),
                _span(scratch),
                _span((row["share of the paper's length"] for row in group), 3) + _assumed(group[0]),
                _span((row["minutes"] for row in group), 0),
                "; ".join(map(_told, beside(table, method, share))),
            ]
        )
    head = ["method", "removed, %", "drop, points", "drop of its twin from scratch", "share of the paper's epochs",
            "minutes", "published drop"]  # fmt: skip
    first = mine[0]
    devices = sorted({f"{row['device']}, {row['threads']} thread(s)" for row in mine})
    told = (
        f"{first['network']} on {first['data']}, {title}: {first['train pictures']:,} training and "
        f"{first['validation pictures']:,} validation pictures, {', '.join(devices)}."
    )
    return f"{told}\n\n{_markdown(head, lines)}"


def beside(table: str, method: str, share: float) -> list[Published]:
    """Return the published figures of a method that stand beside a row of this share.

    Of a table with one share all figures of a method do, whatever they removed, since there is no other row for them.
    """
    known = [one for one in PUBLISHED if (one.table, one.method) == (table, method)]
    return known if table == "cifar10" else [one for one in known if abs(one.removed - share) < NEAR]


def _told(one: Published) -> str:
    return f"{one.drop:.2f} at {one.removed:g} % ({one.source})"


def _assumed(row: Facts) -> str:
    known = row["paper's length"]["known"]
    return "" if known in ("code", "paper") else f" ({known})"


# ------------------------------------------------------------------------------------------------- without training


def _one_shot(kind: str, rows: Sequence[Facts]) -> str:
    mine = [row for row in rows if row.get("table") == f"one-shot {kind}"]
    if not mine:
        return ""
    cost = "params" if kind == "weights" else "macs"
    mine.sort(key=lambda row: [*row["asked"].values()])
    lines = []
    for (_, how), group in _grouped(mine, lambda row: (*row["asked"].values(), row["method"])).items():
        accuracy, minutes = _span(row["accuracy"] for row in group), _span((row["minutes"] for row in group), 1)
        lines.append([how, _span((row[f"{cost} removed"] for row in group), 1), accuracy, minutes])
    lines += [
        [peer.what, f"{peer.removed:.1f}", f"{peer.accuracy:.2f} of 2,000", ""] for peer in PEERS if peer.kind == kind
    ]
    told = f"ResNet-56 as published ({mine[0]['baseline accuracy']:.2f} %), {kind} removed, no training"
    return f"{told}.\n\n{_markdown(['', 'removed, %', 'accuracy, %', 'minutes'], lines)}"


# ------------------------------------------------------------------------------------------------- searches


def _searches(rows: Sequence[Facts]) -> str:
    mine = [row for row in rows if row.get("table") == "searches"]
    if not mine:
        return ""
    found = {(row["allocator"], row["seed"]): row["divergence"] for row in mine}
    lines = []
    for name, group in _grouped(mine, lambda row: row["allocator"]).items():
        lines.append(
            [
                name,
                _span((row["evaluated"] for row in group), 0),
                _span((row["divergence"] for row in group), 4),
                *(_ahead(group, other, found) for other in ("random", "knapsack")),
                _span(row["drop"] for row in group),
                _span((row["minutes"] for row in group), 1),
            ]
        )
    head = ["allocator", "plans measured", "divergence, nats", "seeds ahead of random", "of knapsack",
            "drop without training", "minutes"]  # fmt: skip
    return f"Searches on {mine[0]['network']}, {mine[0]['asked']}.\n\n{_markdown(head, lines)}"


def _ahead(group: Sequence[Facts], other: str, found: Mapping[tuple[str, int], float]) -> str:
    """Tell with how many seeds an allocator found a better plan than another."""
    pairs = [(row["divergence"], found[other, row["seed"]]) for row in group if (other, row["seed"]) in found]
    return f"{sum(a < b for a, b in pairs)} of {len(pairs)}" if group[0]["allocator"] != other and pairs else ""


# ------------------------------------------------------------------------------------------------- Markdown


def _grouped(rows: Iterable[Facts], key: Any) -> dict[Any, list[Facts]]:
    found: dict[Any, list[Facts]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def _span(values: Iterable[float], digits: int = 2) -> str:
    """Return the mean, and the least and largest in brackets where they differ."""
    found = list(values)
    if not found:
        return ""
    mean, least, most = (f"{v:.{digits}f}" for v in (statistics.fmean(found), min(found), max(found)))
    return mean if least == most else f"{mean} ({least} to {most})"


def _markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
