"""Layers in few bits, in words: from how many bits to how many, what that stores, and whether it is faster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penjing.report import units
from penjing.steps.few_bits import SIZE_ONLY, FewBits

FLOAT = 32
SITE = "/bits"
"""What the name of a site ends with whose units are bits."""


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    layer: str
    method: str
    weights: str
    reads: str
    stored: str
    mark: str


def lines(layers: Sequence[FewBits]) -> list[Line]:
    """Return a row a layer."""
    return [
        Line(
            one.layer,
            one.method,
            changed(FLOAT, one.bits),
            changed(FLOAT, one.input_bits) if one.input_bits < FLOAT else "floats",
            f"{units.size(one.float_bytes)} → {units.size(one.bytes)}",
            SIZE_ONLY if one.size_only else "",
        )
        for one in layers
    ]


def changed(before: int, after: int) -> str:
    r"""Say from how many bits to how many.

    >>> changed(32, 4), changed(32, 1), changed(32, 32)
    ('32 → 4\xa0bits', '32 → 1\xa0bit', '32\xa0bits')
    """
    now = f"{after}{units.GAP}{'bit' if after == 1 else 'bits'}"
    return now if before == after else f"{before} → {now}"


def summary(layers: Sequence[FewBits]) -> str:
    """Say of all layers in few bits how many there are, what they store, and whether any is faster for it."""
    if not layers:
        return ""
    methods = ", ".join(dict.fromkeys(one.method for one in layers))
    before, after = sum(one.float_bytes for one in layers), sum(one.bytes for one in layers)
    only = [one for one in layers if one.size_only]
    if not only:
        speed = "They are computed in a narrower precision."
    else:
        which = "All" if len(only) == len(layers) else f"{len(only)} of them"
        speed = f"{which} are smaller and not faster where this run measures: “{SIZE_ONLY}”."
    few = "1 layer is" if len(layers) == 1 else f"{len(layers)} layers are"
    stored = f"{units.size(before)} of weights became {units.size(after)}, tables included"
    return f"{few} in few bits, by {methods}: {stored}. {speed}"
