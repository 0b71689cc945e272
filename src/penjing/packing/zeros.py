"""Where a sparse weight is not zero: a bit a weight, or the gaps between those that are not.

A gap field of b bits says how many zeros precede a value; its highest code, 2 ** b - 1, so many zeros and no value.
A last gap leads to the place behind the weight, so that fields and weight must end together.

Paper: Han, Mao, Dally, Deep Compression, ICLR 2016, section 2, figure 2.
Differs: a gap too long for its field is continued by a code of its own; theirs is by a filler whose value, a zero, is
stored with the others, which costs more than it saves once values are floats or a bit. Fields may be Huffman coded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penjing.core.errors import BundleError
from penjing.packing import bits, coding
from penjing.packing.parts import only, whole

WIDTHS = range(2, 9)
"""Bits of a gap field; in one bit it would be the mask with another name."""


def write(there: NDArray[np.bool_]) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """Return the places as bytes, and facts that say how: in the smallest of all ways.

    Shapes: there [numbers], true where a value is.
    """
    stops = np.append(np.flatnonzero(there), len(there))
    gaps = np.diff(stops, prepend=-1) - 1
    best, way = bits.size(len(there), 1), (0, "mask")
    for width in WIDTHS:
        counts = _counts(gaps, width)
        for how in coding.CODINGS:
            size = coding.size(counts, how)
            if size < best:
                best, way = size, (width, how)
    width, how = way
    if not width:
        return {"as": "mask"}, bits.pack(there.view(np.uint8), 1)
    fields = _fields(gaps, width)
    facts = {"as": "gaps", "bits": width, "fields": len(fields), "coding": how}
    return facts, coding.write(fields, 2**width, how)


def read(facts: Any, data: NDArray[np.uint8], numbers: int) -> NDArray[np.bool_]:
    """Return the places among ``numbers``.

    Raises: BundleError when facts and bytes are not of so many.
    """
    kind = facts.get("as") if isinstance(facts, Mapping) else None
    if kind == "mask":
        only(facts, {"as"}, "facts of where values are")
        return bits.unpack(data, 1, numbers).view(np.bool_)
    only(facts, {"as", "bits", "fields", "coding"}, "facts of where values are")
    if kind != "gaps":
        raise BundleError(f"where values are is told by a mask or by gaps, not by {str(kind)[:40]!r}.")
    width = whole(facts, "bits", WIDTHS[0], WIDTHS[-1])
    fields = coding.read(data, 2**width, whole(facts, "fields", 1, numbers + 1), facts["coding"])
    longest = 2**width - 1
    stops = np.cumsum(fields.astype(np.int64) + (fields < longest))
    if stops[-1] != numbers + 1 or fields[-1] == longest:
        raise BundleError(f"gaps lead to place {int(stops[-1]) - 1}, not to the end of {numbers}.")
    there = np.zeros(numbers + 1, dtype=np.bool_)
    there[stops[fields < longest] - 1] = True
    return there[:-1]


def _counts(gaps: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Return how often each field occurs, without making them."""
    longest = 2**width - 1
    counts = np.bincount(gaps % longest, minlength=2**width)
    counts[longest] = (gaps // longest).sum()
    return counts


def _fields(gaps: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
    longest = 2**width - 1
    ends = np.cumsum(gaps // longest + 1)
    fields = np.full(ends[-1], longest, dtype=np.uint8)
    fields[ends - 1] = gaps % longest
    return fields
