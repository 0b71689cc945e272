"""Refuse what does not fit into memory before it starts."""

from __future__ import annotations

import os

from penjing.core.errors import PlanError


def available() -> int:
    """Return the bytes of memory that are free, or very many where the system does not say.

    Units: bytes.
    """
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:  # noqa: PTH123 - no regular file
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):
            return 1 << 62


def check_fits(needed: int, what: str) -> None:
    """Refuse a computation that needs more bytes than are free.

    Raises: PlanError naming ``what``, the need and what is there.
    """
    there = available()
    if needed > there:
        raise PlanError(
            f"{what} needs about {needed / 2**30:.3g} GiB of memory, and {there / 2**30:.3g} GiB are free; "
            "ask for a lower rank, choose another factorisation, or leave the layer out."
        )
