"""What layers became that had a menu of light blocks, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from penjing.report import units
from penjing.steps.lightened import Lightened

WHOLE = "stays"


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    layer: str
    became: str
    macs: str
    missed: str
    offered: str


def lines(lightened: Sequence[Lightened]) -> list[Line]:
    """Return a row a layer."""
    return [
        Line(
            one.layer,
            f"{one.family}, rank {' x '.join(map(str, one.ranks))}" if one.family else WHOLE,
            " → ".join(units.scaled(n) for n in dict.fromkeys(one.macs)),
            f"{100 * one.error:.3g}{units.GAP}%" if one.family else "–",
            "; ".join(one.offered),
        )
        for one in lightened
    ]


def summary(lightened: Sequence[Lightened]) -> str:
    """Say how many layers took which family."""
    counts = Counter(one.family or WHOLE for one in lightened).most_common()
    told = ", ".join(f"{n} {name}" for name, n in counts if name != WHOLE) or "none became lighter"
    stays = sum(not one.family for one in lightened)
    return f"Of {len(lightened)} layers with a menu: {told}{f'; {stays} stay as they are' if stays else ''}."
