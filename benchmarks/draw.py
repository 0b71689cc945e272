"""Draw the picture of `frontier.py`'s rows: accuracy against the measured time of the exported file.

python benchmarks/draw.py --rows benchmarks/results/frontier --out docs/figures/frontier.svg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from penjing.core.files import write_whole
from penjing.report.results import Row
from penjing.report.svg import INK, MOSS, PALE, SOFT, STONE, alone, drawing, inline
from penjing.report.words import interval

STYLES = {
    True: {"label": "after 12 epochs", "color": MOSS, "marker": "o", "linewidth": 2},
    False: {"label": "without training", "color": STONE, "marker": "s", "linewidth": 1.5, "linestyle": "--"},
}


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the rows that have a result, the slowest network first."""
    found = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return sorted((row for row in found if "error" not in row), key=_speed)


def _speed(row: dict[str, Any]) -> float:
    """Return how many times as fast as the original, taken in one interleaved run."""
    return float(row["speed-up"]["median"])


def drawn(rows: list[dict[str, Any]]) -> str:
    """Return the picture as a file that stands alone, on paper of its own, light or dark as the reader's system is."""
    with drawing("frontier"):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.4, 4.3), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.15, h_pad=0.15)
        axes = figure.subplots()
        for trained, style in STYLES.items():
            mine = [row for row in rows if bool(row["epochs"]) is trained]
            axes.plot([_speed(r) for r in mine], [r["penjing"]["accuracy"] for r in mine], markersize=7, **style)
        original = rows[0]["original"]
        low, high = _interval(original)
        axes.axhspan(low, high, color=PALE, linewidth=0, label="95 % interval of the original")
        axes.plot([1], [original["accuracy"]], color=INK, marker="D", markersize=8, linestyle="none", label="original")
        for row in (r for r in rows if r["epochs"]):
            share = row["budget"].removeprefix("macs=").replace("x", "×")
            axes.text(_speed(row), high, f"{share}\n", ha="center", va="center", fontsize=10, color=SOFT)
        axes.set_xscale("log", base=2)
        ticks = [1, 2, 4, 8, 16, 32]
        axes.set_xticks(ticks, [f"{tick}×" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("times as fast as the original, measured")
        axes.set_title("test accuracy, %; above: the budget, MACs left", pad=18)
        axes.legend(loc="lower left")
        picture = inline(figure, "frontier")
    return alone(picture)


def _interval(row: dict[str, Any]) -> tuple[float, float]:
    return interval(Row("original", 1, 1, 1, wrong=row["wrong"], of=row["of"]))


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=Path("benchmarks/results/frontier"))
    parser.add_argument("--out", type=Path, default=Path("docs/figures/frontier.svg"))
    where = parser.parse_args()
    print(write_whole(where.out, drawn(read(where.rows)).encode()))


if __name__ == "__main__":
    main()
