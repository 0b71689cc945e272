"""What rows of ``distill.py`` there are, as tables in Markdown and as a picture of the students' accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from penjing.report.svg import INK, MOSS, STONE, alone, drawing, inline

Facts = Mapping[str, Any]
Group = list[Facts]


def grouped(rows: Sequence[Facts], *keys: str) -> list[Group]:
    """Return rows that differ in nothing but the seed together, in the order of the first of each."""
    found: dict[tuple[Any, ...], Group] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in (*keys, "epochs", "train pictures")), []).append(row)
    return list(found.values())


def tables(rows: Sequence[Facts]) -> str:
    """Return all tables."""
    taught = grouped([row for row in rows if row["part"] == "teach"], "data", "student", "terms")
    recovered = grouped([row for row in rows if row["part"] == "recover"], "budget", "labels", "place", "terms")
    return "\n\n".join(filter(None, (_students(taught), _recoveries(recovered))))


def _students(groups: Sequence[Group]) -> str:
    head = ["data", "student", "terms", "test, %", "spread", "validation, %", "gain over none, points",
            "teacher, validation, %", "CPU minutes", "seeds", "training"]  # fmt: skip
    lines = [head, ["---"] * 3 + ["--:"] * 7 + ["---"]]
    alone_ = {_place(group[0]): _of(group, "accuracy") for group in groups if group[0]["terms"] == "none"}
    for group in sorted(groups, key=lambda group: (*map(str, _place(group[0])), -_of(group, "validation"))):
        one = group[0]
        none = alone_.get(_place(one))
        gain = "" if none is None or one["terms"] == "none" else f"{_of(group, 'accuracy') - none:+.2f}"
        lines.append([
            one["data"], one["student"], f"`{one['terms']}`", f"{_of(group, 'accuracy'):.2f}", _spread(group),
            f"{_of(group, 'validation'):.2f}", gain, f"{one['teacher']['validation']:.2f}",
            f"{_of(group, 'cpu minutes'):.1f}", _seeds(group), _length(one),
        ])  # fmt: skip
    return _markdown(lines) if groups else ""


def _recoveries(groups: Sequence[Group]) -> str:
    head = ["MACs", "labels", "terms", "test, %", "spread", "validation, %", "after the cut, %", "CPU minutes", "seeds",
            "training"]  # fmt: skip
    lines = [head, ["---"] * 3 + ["--:"] * 6 + ["---"]]
    for group in sorted(groups, key=lambda g: (g[0]["budget"], not g[0]["labels"], -_of(g, "validation"))):
        one = group[0]
        lines.append([
            one["budget"], "yes" if one["labels"] else "no", f"`{one['terms']}`", f"{_of(group, 'accuracy'):.2f}",
            _spread(group), f"{_of(group, 'validation'):.2f}", f"{_of(group, 'validation after the cut'):.2f}",
            f"{_of(group, 'cpu minutes'):.1f}", _seeds(group), _length(one),
        ])  # fmt: skip
    return _markdown(lines) if groups else ""


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _place(row: Facts) -> tuple[Any, ...]:
    return row["data"], row["student"], row["epochs"], row["train pictures"]


def _of(group: Group, key: str) -> float:
    return mean(row[key] for row in group)


def _spread(group: Group) -> str:
    values = [row["accuracy"] for row in group]
    return f"{min(values):.2f} to {max(values):.2f}"


def _seeds(group: Group) -> str:
    return ", ".join(str(row["seed"]) for row in sorted(group, key=lambda row: row["seed"]))


def _length(row: Facts) -> str:
    seen = f"{row['epochs']} epochs of {row['train pictures']:,} pictures"
    return f"**short:** {seen}" if row["length"] == "short" else seen


def drawn(rows: Sequence[Facts]) -> str:
    """Return the students' test accuracy on CIFAR-10, a row a term, as a picture; bars go from seed to seed."""
    marks = {"resnet20": ("o", MOSS, "ResNet-20"), "resnet56_half": ("s", INK, "ResNet-56 of half the width")}
    mine = [row for row in rows if row["part"] == "teach" and row["data"] == "cifar10"]
    groups = grouped(mine, "student", "terms")
    order = sorted(
        {row["terms"] for row in mine}, key=lambda term: mean(r["accuracy"] for r in mine if r["terms"] == term)
    )
    with drawing("distill"):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.4, 0.6 * len(order) + 1.6), layout="constrained")
        axes = figure.subplots()
        for pupil, (marker, colour, label) in marks.items():
            of = [group for group in groups if group[0]["student"] == pupil]
            at = [order.index(group[0]["terms"]) for group in of]
            axes.plot([_of(group, "accuracy") for group in of], at, color=colour, marker=marker, markersize=7,
                      linestyle="none", label=label)  # fmt: skip
            for y, group in zip(at, of, strict=True):
                values = [row["accuracy"] for row in group]
                axes.plot([min(values), max(values)], [y, y], color=colour, linewidth=1.5)
                if group[0]["terms"] == "none":
                    axes.axvline(_of(group, "accuracy"), color=STONE, linewidth=1, linestyle="--")
        axes.set_yticks(range(len(order)), order)
        axes.margins(y=0.15)
        longest = max(mine, key=lambda row: (row["epochs"], row["train pictures"]))
        axes.set_title(f"test accuracy on CIFAR-10, %; {_length(longest).replace('**', '')}", pad=12)
        axes.legend(loc="lower right")
        picture = inline(figure, "distill")
    return alone(picture)
