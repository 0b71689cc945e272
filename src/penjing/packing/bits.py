"""Codes of a few bits, one after the other in bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penjing.core.errors import BundleError, PlanError

GROUP = 8
"""Codes that fill whole bytes, whatever their width."""


def size(count: int, width: int) -> int:
    """Return how many bytes ``count`` codes of ``width`` bits take."""
    return -(-count * width // 8)


def pack(codes: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Write codes of ``width`` bits, 1 to 8, lowest bit first; what is left of the last byte is 0.

    Shapes: codes [count]; returned [size(count, width)].

    Raises: PlanError for a code that needs more bits.
    """
    if codes.size and int(codes.max()) >> width:
        raise PlanError(f"Code {int(codes.max())} does not fit in {width} bits.")
    groups = np.zeros((-(-len(codes) // GROUP), GROUP), dtype=np.uint8)
    groups.reshape(-1)[: len(codes)] = codes
    words = np.zeros(len(groups), dtype="<u8")
    for place in range(GROUP):
        words |= groups[:, place].astype("<u8") << np.uint64(place * width)
    written = words.view(np.uint8).reshape(-1, GROUP)[:, :width].reshape(-1)
    return written[: size(len(codes), width)].copy()


def unpack(data: NDArray[np.uint8], width: int, count: int) -> NDArray[np.uint8]:
    """Read ``count`` codes of ``width`` bits.

    Raises: BundleError when the bytes are not as many as those codes take, or the rest of the last is not 0.
    """
    if len(data) != size(count, width):
        raise BundleError(f"{count} codes of {width} bits take {size(count, width)} bytes, and {len(data)} are there.")
    groups = np.zeros((-(-count // GROUP), width), dtype=np.uint8)
    groups.reshape(-1)[: len(data)] = data
    padded = np.zeros((len(groups), GROUP), dtype=np.uint8)
    padded[:, :width] = groups
    words = padded.view("<u8").reshape(-1)
    codes = np.empty((len(groups), GROUP), dtype=np.uint8)
    for place in range(GROUP):
        codes[:, place] = (words >> np.uint64(place * width)) & np.uint64((1 << width) - 1)
    if codes.reshape(-1)[count:].any():
        raise BundleError("bits behind the last code are set.")
    return codes.reshape(-1)[:count]
