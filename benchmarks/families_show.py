"""What rows of ``families.py`` there are, as tables in Markdown and as a picture of accuracy against cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from penjing.report.svg import INK, MOSS, SOFT, STONE, alone, drawing, inline

Facts = Mapping[str, Any]
Length = tuple[int, int]
"""Epochs of training, and its pictures."""

AXES = {"onnxruntime": "latency on ONNX Runtime, times ResNet-20's",
        "edge_tpu_like": "energy as the model of edge_tpu_like tells, times ResNet-20's"}  # fmt: skip


def cost(row: Facts) -> float:
    """Return what the network costs, as a multiple of what ResNet-20 does."""
    if row["cost"] == "latency":
        return float(row["times as long"]["median"])
    return float(row["hardware"][row["target"]][row["cost"]] / row["reference"])


def tables(rows: Sequence[Facts]) -> str:
    """Return a table for every target, budget and length of training, the best family on validation first."""
    groups: dict[tuple[str, float, Length], dict[str, Facts]] = {}
    for row in rows:
        if row["model"] is not None:
            groups.setdefault((row["target"], row["share"], _length(row)), {})[f"{row['family']} {row['seed']}"] = row
    for row in rows:
        for (target, share, _), mine in groups.items():
            if row["model"] is None and (row["target"], row["share"]) == (target, share):
                mine.setdefault(row["family"], row)  # however long others train
    order = sorted(groups, key=lambda key: (key[0] != "onnxruntime", key))
    return "\n\n".join(_table(list(groups[key].values())) for key in order)


def _table(rows: Sequence[Facts]) -> str:
    first = rows[0]
    head = [f"{first['cost']} up to {first['share']:g} times ResNet-20's, {first['target']}", "width", "reached",
            "parameters", "MACs, M", "kB", "validation, %", "test, %", "seed", "training"]  # fmt: skip
    lines = [head, ["---"] + ["--:"] * 8 + ["---"]]
    for row in sorted(rows, key=lambda row: -row.get("validation", 0.0)):
        if row["model"] is None:
            least = row["smallest"] / row["reference"]
            lines.append([f"`{row['family']}`", "", f"at least {least:.2f}", *[""] * 6, "too costly at any width"])
            continue
        lines.append([
            f"`{row['family']}`", _width(row), f"{cost(row):.2f}", f"{row['params']:,.0f}", f"{row['macs'] / 1e6:.1f}",
            f"{row['size'] / 1e3:,.0f}", f"{row['validation']:.1f}", f"{row['accuracy']:.2f}", str(row["seed"]),
            f"**short:** {_seen(row)}" if row["length"] == "short" else _seen(row),
        ])  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _width(row: Facts) -> str:
    return str(row["model"].partition("width=")[2].rstrip(")"))


def drawn(rows: Sequence[Facts]) -> str:
    """Return test accuracy against cost, of rows trained longest: a panel a target, a line a family, the best marked.

    Raises: ValueError without a row.
    """
    trained = [row for row in rows if row["model"] is not None]
    longest = max(map(_length, trained))
    made = [row for row in trained if _length(row) == longest]
    shown = [target for target in AXES if any(row["target"] == target for row in made)]
    with drawing("families"):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.2 * len(shown), 4.8), layout="constrained")
        for axes, target in zip(figure.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown, strict=True):
            mine = [row for row in made if row["target"] == target]
            best = {max((row for row in mine if row["share"] == share), key=lambda row: row["validation"])["family"]
                    for share in {row["share"] for row in mine}}  # fmt: skip
            ends: dict[str, tuple[float, float]] = {}
            for family in dict.fromkeys(row["family"] for row in mine):
                points = _points([row for row in mine if row["family"] == family])
                colour = MOSS if family in best else INK if family == "resnet20" else STONE
                axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=5, linewidth=1.2)
                ends[family] = points[-1]
            gap = 0.035 * (max(y for _, y in ends.values()) - min(y for _, y in ends.values()) or 1.0)
            order = _upwards(ends)
            for (family, (x, _)), y in zip(order, _apart([y for _, (_, y) in order], gap), strict=True):
                colour = MOSS if family in best else INK if family == "resnet20" else SOFT
                axes.annotate(family.removesuffix("_cifar"), (x, y), xytext=(7, 0), textcoords="offset points",
                              va="center", fontsize=9, color=colour, annotation_clip=False)  # fmt: skip
            axes.set_xscale("log")
            shares = sorted({row["share"] for row in mine})
            axes.set_xticks(shares, [f"{share:g}" for share in shares])
            axes.minorticks_off()
            axes.margins(x=0.25)
            axes.set_xlabel(AXES[target])
        figure.axes[0].set_title(f"test accuracy on CIFAR-10, %; {_seen(made[0])}", pad=12)
        picture = inline(figure, "families")
    return alone(picture)


def _points(rows: Sequence[Facts]) -> list[tuple[float, float]]:
    """Return cost and accuracy for each budget, over all seeds, cheapest first."""
    shares = sorted({row["share"] for row in rows})
    groups = [[row for row in rows if row["share"] == share] for share in shares]
    return [(mean(map(cost, group)), mean(row["accuracy"] for row in group)) for group in groups]


def _upwards(ends: Mapping[str, tuple[float, float]]) -> list[tuple[str, tuple[float, float]]]:
    return sorted(ends.items(), key=lambda item: item[1][1])


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Return the same heights, which rise, with at least ``gap`` between neighbours."""
    found: list[float] = []
    for height in heights:
        found.append(max(height, found[-1] + gap) if found else height)
    return found


def _length(row: Facts) -> Length:
    return row["training"]["epochs"], row["training"]["train pictures"]


def _seen(row: Facts) -> str:
    epochs, pictures = _length(row)
    return f"{epochs} epochs of {pictures:,} pictures"
