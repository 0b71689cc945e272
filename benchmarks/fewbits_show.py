"""What rows of ``fewbits.py`` there are, as tables in Markdown and as a picture of accuracy against bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from penjing.report.svg import INK, MOSS, STONE, alone, drawing, inline

Facts = Mapping[str, Any]

FILES = {"bundle": "bundle", "onnx": "ONNX file"}
MARKS = {"int": ("s", STONE, "whole numbers, weights and inputs"), "weights": ("o", MOSS, "weights alone"),
         "binary": ("^", INK, "one bit a weight")}  # fmt: skip


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the rows that have a result."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [row for row in found if "error" not in row]


def size(row: Facts) -> int:
    """Return the bytes of the file that holds the few bits."""
    return int(row["onnx"] if row["file"] == "onnx" else row["bundle"]["bytes"])


def smaller(row: Facts) -> float:
    """Return how many times smaller that file is than the original's of its kind."""
    whole = row["original onnx"] if row["file"] == "onnx" else row["original bundle"]["bytes"]
    return float(whole / size(row))


def told(row: Facts) -> str:
    """Return how long a row was trained, and that it is short where it is."""
    seen = f"{row['epochs']} epochs of {row['train pictures']:,} pictures" if row["epochs"] else "no training"
    return f"**short:** {seen}" if row["length"] == "short" else seen


# ------------------------------------------------------------------------------------------------- tables


def tables(rows: Sequence[Facts]) -> str:
    """Return all tables."""
    parts = []
    for network in ("resnet20", "vgg16_half"):
        for start in ("trained", "fresh"):
            mine = [row for row in rows if row["network"] == network and row.get("start") == start]
            parts.append(_methods(network, start, mine))
    parts.append(_plans([row for row in rows if "family" in row]))
    parts.append(_stored([row for row in rows if row["network"] == "vgg16_bn"]))
    return "\n\n".join(filter(None, parts))


def _methods(network: str, start: str, rows: Sequence[Facts]) -> str:
    head = ["method", "bits", "test, %", "original, %", "validation, %", "kB on disk", "times smaller", "packed kB",
            "ONNX kB", "times as fast", "training", "CPU minutes", "seed"]  # fmt: skip
    lines = [
        [
            row["method"], row["bits"], f"{row['accuracy']:.2f}", _or(row["original accuracy"]),
            f"{row['validation']['after']:.2f}", f"{_kb(size(row))} ({FILES[row['file']]})", f"{smaller(row):.1f}",
            _kb(row["bundle"]["packed"]) if row["file"] == "bundle" else "", _kb(row["onnx"]), _ratio(row), told(row),
            f"{row['cpu minutes']:.1f}", str(row["seed"]),
        ]
        for row in sorted(rows, key=lambda row: (row["length"], -row["accuracy"]))
    ]  # fmt: skip
    return _titled(f"{network}, from {'new weights' if start == 'fresh' else 'the trained network'}", rows, head, lines)


def _plans(rows: Sequence[Facts]) -> str:
    head = ["budget", "one plan of", "test, %", "original, %", "ONNX kB", "kB on disk", "times as fast", "met",
            "training", "seed"]  # fmt: skip
    lines = []
    for row in sorted(rows, key=lambda row: (row["length"], row["budget"])):
        if "infeasible" in row:
            lines.append([row["budget"], row["family"], *[""] * 5, "cannot be", told(row), str(row["seed"])])
            continue
        met = "no" if row["missed"] else "yes"
        lines.append([row["budget"], row["family"], f"{row['accuracy']:.2f}", _or(row["original accuracy"]),
                      _kb(row["onnx"]), _kb(row["bundle"]["bytes"]), _ratio(row), met, told(row),
                      str(row["seed"])])  # fmt: skip
    return _titled("channels, ranks and bits", rows, head, lines)


def _stored(rows: Sequence[Facts]) -> str:
    head = ["method", "bits", "kB on disk", "times smaller", "ONNX kB", "times as fast"]
    lines = [
        [row["method"], row["bits"], f"{_kb(size(row))} ({FILES[row['file']]})", f"{smaller(row):.1f}",
         _kb(row["onnx"]), _ratio(row)]
        for row in sorted(rows, key=size)
    ]  # fmt: skip
    return _titled("vgg16_bn, bytes and time alone, without training", rows, head, lines)


def _titled(title: str, rows: Sequence[Facts], head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    if not rows:
        return ""
    places = sorted({f"{row['device']}, {row['threads']} thread(s), {row['date']}" for row in rows})
    body = "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])
    return f"{title}; {'; '.join(places)}.\n\n{body}"


def _ratio(row: Facts) -> str:
    found = row["speed-up"]
    return f"{found['median']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def _kb(count: float) -> str:
    return f"{count / 1000:,.1f}"


def _or(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


# ------------------------------------------------------------------------------------------------- the picture


def drawn(rows: Sequence[Facts]) -> str:
    """Return the picture of the longest rows from the trained ResNet-20, seed 0, as a file that stands alone."""
    rows = [row for row in rows if (row["network"], row.get("start"), row.get("seed")) == ("resnet20", "trained", 0)]
    most = max(_trained(row) for row in rows)
    # What trains nothing, or needs an epoch more, stands beside them.
    rows = [row for row in rows if _trained(row) == most or row["method"] in ("int8_ptq", "deep_compression")]
    with drawing("fewbits"):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.4, 5.2), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.15, h_pad=0.15)
        axes = figure.subplots()
        for kind, (marker, colour, label) in MARKS.items():
            mine = [row for row in rows if _kind(row) == kind]
            axes.plot([size(row) / 1000 for row in mine], [row["accuracy"] for row in mine], color=colour,
                      marker=marker, markersize=7, linestyle="none", label=label)  # fmt: skip
        for row in rows:
            axes.annotate(row["method"], (size(row) / 1000, row["accuracy"]), xytext=(6, 3), fontsize=9,
                          textcoords="offset points")  # fmt: skip
        original = rows[0]
        axes.axhline(original["original accuracy"], color=STONE, linewidth=1, linestyle="--")
        axes.plot([original["original bundle"]["bytes"] / 1000], [original["original accuracy"]], color=INK,
                  marker="D", markersize=8, linestyle="none", label="original")  # fmt: skip
        axes.set_xscale("log", base=2)
        ticks = [32, 64, 128, 256, 512, 1024]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.margins(x=0.12)
        axes.set_xlabel("kB on disk, manifest and float layers included")
        axes.set_title(f"test accuracy of ResNet-20 on CIFAR-10, %; {_heading(rows)}", pad=18)
        axes.legend(loc="lower right")
        picture = inline(figure, "fewbits")
    return alone(picture)


def _trained(row: Facts) -> tuple[bool, int, int]:
    return row["length"] == "full", row["epochs"], row["train pictures"]


def _heading(rows: Sequence[Facts]) -> str:
    longest = max(rows, key=_trained)
    return told(longest).replace("**", "")


def _kind(row: Facts) -> str:
    weights, _, inputs = row["bits"].partition("/")
    if weights == "1":
        return "binary"
    return "weights" if inputs == "32" else "int"
