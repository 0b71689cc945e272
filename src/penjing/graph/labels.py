"""Labels: names for channels, and the knowledge of which names must go together.

Every dimension of every tensor either has one label an index or none at all. Tensors are dense boxes, so any cut
that a runtime can execute removes an index set from each dimension independently of the others: labels along
single dimensions lose nothing, and cost next to nothing even where maps are large.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from penjing.core.types import Ints


@dataclass(frozen=True, eq=False)
class Tagged:
    """A tensor during tracing: its shape, and the labels along each dimension (None where nothing may go).

    ``name`` is set when the tensor is a parameter or buffer read directly; its dimensions are labelled on demand.
    """

    shape: tuple[int, ...]
    dims: tuple[Ints | None, ...]
    name: str = ""

    @classmethod
    def plain(cls, shape: tuple[int, ...]) -> Tagged:
        """Return a tensor without labels."""
        return cls(shape, (None,) * len(shape))


@dataclass(frozen=True)
class Reason:
    """Why a label must stay; ``fixed_by_code`` when a constant in the user's source is the cause."""

    why: str
    line: str = ""
    fixed_by_code: bool = False
    boundary: bool = False


class Labels:
    """Hands out labels, and remembers ties between them, pins on them, and the axes of tensors they name."""

    def __init__(self) -> None:
        self.count = 0
        self._edges: list[tuple[Ints, Ints]] = []
        self._pins: list[tuple[Ints, Reason]] = []
        self.axes: dict[tuple[str, int], Ints] = {}
        self.roles: dict[tuple[str, int], str] = {}

    def fresh(self, size: int) -> Ints:
        """Return new labels ``[size]``."""
        start, self.count = self.count, self.count + size
        return np.arange(start, self.count)

    def tie(self, a: Ints, b: Ints) -> None:
        """Let the labels go or stay together, position by position."""
        if a is not b:
            self._edges.append((a, b))

    def tie_rows(self, table: Ints) -> Ints:
        """Tie the rows of ``[rows, columns]`` to one another; return the first row."""
        for row in table[1:]:
            self.tie(table[0], row)
        return table[0]

    def pin(self, labels: Ints, reason: Reason) -> None:
        """Keep these labels, for this reason."""
        if labels.size:
            self._pins.append((labels, reason))

    def axis(self, name: str, axis: int, size: int) -> Ints:
        """Return the labels of one axis of a parameter or buffer, making them on first use."""
        if (name, axis) not in self.axes:
            self.axes[name, axis] = self.fresh(size)
        return self.axes[name, axis]

    def bind(self, name: str, axis: int, labels: Ints, role: str = "tied") -> None:
        """Say that this axis of a parameter or buffer carries these labels."""
        known = self.axes.setdefault((name, axis), labels)
        self.tie(known, labels)
        self.mark(name, axis, role)

    def mark(self, name: str, axis: int, role: str) -> None:
        """Give an axis its role; ``out`` outranks ``in``, which outranks ``tied``."""
        rank = {"tied": 0, "in": 1, "out": 2}
        if rank[role] >= rank[self.roles.get((name, axis), "tied")]:
            self.roles[name, axis] = role

    def classes(self) -> Ints:
        """Return the class of each label: labels that go together share one."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        if not self.count:
            return np.arange(0)
        pairs = self._edges or [(np.arange(0), np.arange(0))]
        a, b = (np.concatenate(side) for side in zip(*pairs, strict=True))
        matrix = coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(self.count, self.count))
        found: Ints = np.asarray(connected_components(matrix, directed=False)[1]).astype(np.int64)
        return found

    def reasons(self, classes: Ints) -> dict[int, Reason]:
        """Return the first reason of every pinned class; a constant in the user's code is told before others."""
        found: dict[int, Reason] = {}
        for labels, reason in sorted(self._pins, key=lambda pin: (pin[1].boundary, not pin[1].fixed_by_code)):
            for c in np.unique(classes[labels]).tolist():
                found.setdefault(c, reason)
        return found
