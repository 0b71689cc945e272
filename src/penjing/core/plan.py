"""Plans: which units of which site stay, as plain data; only a rewrite edits a network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from penjing.core.errors import PlanError, did_you_mean
from penjing.core.sites import Site, inside
from penjing.core.units import Ints, Kept


@dataclass(frozen=True, eq=False)
class Entry:
    """One decision: this rewrite, at this site, keeps these units."""

    rewrite: str
    site: str
    kept: Kept
    size: int


@dataclass(frozen=True, eq=False)
class Plan:
    """Decisions, in order of site; plain data that can be printed, saved and compared by ``key``."""

    entries: tuple[Entry, ...] = ()

    @classmethod
    def of(cls, rewrite: str, kept: Mapping[str, Sequence[int] | Ints], sites: Sequence[Site]) -> Plan:
        """Build a plan from kept unit indices by site name; sites not named stay whole and are left out.

        ``rewrite`` changes the sites that name none of their own. What lies within a site of which nothing stays goes
        with it, and so is left out as well.

        Raises: PlanError for an unknown site, an index out of range, or an empty choice where something must stay.
        """
        by_name = {site.name: site for site in sites}
        entries = []
        for name, units in kept.items():
            if name not in by_name:
                raise PlanError(f"There is no site {name!r}.{did_you_mean(name, by_name)}")
            site = by_name[name]
            array = np.asarray(units, dtype=np.int64)
            if not (np.diff(array) > 0).all():  # a million weights are mostly in order already
                array = np.unique(array)
            if array.size == 0 and site.least > 0:
                raise PlanError(f"{name} would lose all of its {site.size} units; keep at least {site.least}.")
            if array.size and (array[0] < 0 or array[-1] >= site.size):
                raise PlanError(f"{name} has units 0 to {site.size - 1}; the plan keeps {array[0]}..{array[-1]}.")
            if array.size < site.size:
                entries.append(Entry(site.rewrite or rewrite, name, array, site.size))
        taken: set[str] = set()
        if empty := [entry.site for entry in entries if not len(entry.kept)]:
            taken.update(*(inner for name, inner in inside(sites).items() if name in empty))
        return cls(tuple(entry for entry in entries if entry.site not in taken))

    def of_rewrite(self, name: str) -> dict[str, Kept]:
        """Return the kept units by site of one rewrite."""
        return {entry.site: entry.kept for entry in self.entries if entry.rewrite == name}

    def rewrites(self) -> list[str]:
        """Return the names of the rewrites used, in order of first use."""
        return list(dict.fromkeys(entry.rewrite for entry in self.entries))

    def to_json(self) -> list[dict[str, Any]]:
        """Return the plan as JSON data; long choices are written as runs ``[first, last]``."""
        return [{"rewrite": e.rewrite, "site": e.site, "size": e.size, "kept": _runs(e.kept)} for e in self.entries]

    @classmethod
    def from_json(cls, data: Sequence[Mapping[str, Any]]) -> Plan:
        """Read what ``to_json`` wrote.

        Raises: PlanError when the data has another form.
        """
        try:
            return cls(
                tuple(Entry(str(d["rewrite"]), str(d["site"]), _unruns(d["kept"]), int(d["size"])) for d in data)
            )
        except (KeyError, TypeError, ValueError, IndexError):
            raise PlanError("This is not a plan: each entry is a mapping of rewrite, site, size and kept.") from None

    @property
    def key(self) -> str:
        """A short digest; equal plans have equal keys."""
        return hashlib.sha256(json.dumps(self.to_json()).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)


def _runs(kept: Ints) -> list[list[int]]:
    """Return the first and last of each run of indices.

    >>> _runs(np.array([0, 1, 2, 5])), _runs(np.arange(0))
    ([[0, 2], [5, 5]], [])
    """
    breaks = np.flatnonzero(np.diff(kept) != 1)
    firsts, lasts = np.r_[kept[:1], kept[breaks + 1]], np.r_[kept[breaks], kept[-1:]]
    return [[int(a), int(b)] for a, b in zip(firsts, lasts, strict=True)]


def _unruns(runs: Sequence[Sequence[int]]) -> Ints:
    parts = [np.arange(int(a), int(b) + 1) for a, b in runs]
    return np.concatenate(parts).astype(np.int64) if parts else np.arange(0, dtype=np.int64)
