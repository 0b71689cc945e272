"""A curve of quality against cost, as a picture that stands alone."""

from __future__ import annotations

from collections.abc import Sequence

from penjing.report.svg import INK, MOSS, alone, drawing, inline

Place = tuple[float, float]


def curve(points: Sequence[Place], original: Place, across: str, up: str) -> str:
    """Draw points (share, quality) and where they start from, with what the axes are called; return the SVG."""
    with drawing("curve"):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.4, 4.3), layout="constrained")
        axes = figure.subplots()
        xs, ys = zip(*points, strict=True)
        axes.plot([original[0], *xs], [original[1], *ys], color=MOSS, linewidth=2, zorder=2)
        axes.plot(xs, ys, color=MOSS, marker="o", markersize=7, linestyle="none", label="cut", zorder=3)
        axes.plot(*original, color=INK, marker="D", markersize=8, linestyle="none", label="original", zorder=3)
        axes.set_xlim(right=max(1.0, *xs) * 1.05, left=0)
        axes.set_xlabel(across)
        axes.set_title(up)
        axes.legend(loc="best")
        picture = inline(figure, "curve")
    return alone(picture)
