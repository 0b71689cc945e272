"""Labels: names for channels, and the knowledge of which names must go together.

Every dimension of every tensor either has one label an index or none at all. Tensors are dense boxes, so any cut
that a runtime can execute removes an index set from each dimension independently of the others: labels along
single dimensions lose nothing, and cost next to nothing even where maps are large.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from penjing.core.units import Ints
from penjing.graph.balance import unions


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


@dataclass(frozen=True)
class Edge:
    """A tie between labels, position by position, and what caused it; ``counted`` where a count in the code did."""

    a: Ints
    b: Ints
    cause: str
    counted: bool


class Labels:
    """Hands out labels, and remembers ties between them, pins on them, and the axes of tensors they name.

    ``axes`` is kept by (tensor, axis); ``grouped`` by (tensor, groups) for kernels whose second axis counts inside
    groups that may lose different channels. ``cause`` is the operator at work, kept with each tie to explain it.
    """

    def __init__(self) -> None:
        self.count = 0
        self.cause = ""
        self.axes: dict[tuple[str, int], Ints] = {}
        self.grouped: dict[tuple[str, int], Ints] = {}
        self.roles: dict[tuple[str, int], str] = {}
        self._edges: list[Edge] = []
        self._balances: list[tuple[Ints, str]] = []
        self._pins: list[tuple[Ints, Reason]] = []
        self._suspects: list[tuple[Ints, Reason]] = []

    def fresh(self, size: int) -> Ints:
        """Return new labels ``[size]``."""
        start, self.count = self.count, self.count + size
        return np.arange(start, self.count)

    def tie(self, a: Ints, b: Ints) -> None:
        """Let the labels go or stay together, position by position."""
        if a is not b:
            self._edges.append(Edge(a, b, self.cause, counted=False))

    def tie_rows(self, table: Ints) -> Ints:
        """Tie the rows of ``[rows, columns]`` to one another, for a count in the code; return the first row."""
        first: Ints = table[0]
        if len(table) > 1:
            self._edges.append(Edge(np.tile(first, len(table) - 1), table[1:].reshape(-1), self.cause, counted=True))
        return first

    def balance(self, table: Ints) -> None:
        """Say that the rows of ``[rows, columns]`` must lose equally many.

        What goes together for it is found once all ties and pins are known, for all tables at once; of labels that
        nothing else ties, these are those of a column.
        """
        if len(table) > 1:
            self._balances.append((table, self.cause))

    def pin(self, labels: Ints, reason: Reason) -> None:
        """Keep these labels, for this reason."""
        if labels.size:
            self._pins.append((labels, reason))

    def suspect(self, labels: Ints, reason: Reason) -> None:
        """If these labels are pinned for another reason, tell this one, which is behind it."""
        self._suspects.append((labels, reason))

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

    def bind_groups(self, name: str, groups: int, labels: Ints) -> None:
        """Say that the second axis of a grouped kernel carries these labels, those of all groups in a row."""
        self.tie(self.grouped.setdefault((name, groups), labels), labels)

    def part_groups(self) -> None:
        """Tie what all groups of a kernel read where other code reads the same axis of it, which knows no groups."""
        for (name, groups), vector in self.grouped.items():
            if (name, 1) in self.axes:
                self.tie(self.axes[name, 1], self.tie_rows(vector.reshape(groups, -1)))

    def mark(self, name: str, axis: int, role: str) -> None:
        """Give an axis its role; ``out`` outranks ``in``, which outranks ``tied``."""
        rank = {"tied": 0, "in": 1, "out": 2}
        if rank[role] >= rank[self.roles.get((name, axis), "tied")]:
            self.roles[name, axis] = role

    def classes(self) -> Ints:
        """Return the class of each label: labels that go together share one."""
        found = self._tied()
        if not self._balances:
            return found
        pinned = np.zeros(len(found), dtype=np.bool_)
        for labels, _ in self._pins:
            pinned[found[labels]] = True
        first = np.unique(found, return_index=True)[1]
        for at, members in unions([found[table] for table, _ in self._balances], pinned):
            a, *others = first[members].tolist()
            self._edges.append(Edge(np.full(len(others), a), np.array(others), self._balances[at][1], counted=True))
        self._balances.clear()
        return self._tied()

    def _tied(self) -> Ints:
        """Return the connected components of the ties."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        if not self.count:
            return np.arange(0)
        empty = np.arange(0)
        a = np.concatenate([empty, *(edge.a for edge in self._edges)])
        b = np.concatenate([empty, *(edge.b for edge in self._edges)])
        matrix = coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(self.count, self.count))
        found: Ints = np.asarray(connected_components(matrix, directed=False)[1]).astype(np.int64)
        return found

    def reasons(self, classes: Ints) -> tuple[Ints, list[Reason]]:
        """Return, for each class, the number of its reason, -1 where it is free, and the reasons.

        Of several reasons the first counts, but a constant in the user's code is told before others.
        """
        pins = sorted(self._pins, key=lambda pin: (pin[1].boundary, not pin[1].fixed_by_code))
        number = np.full(int(classes.max(initial=-1)) + 1, -1, dtype=np.int64)
        for i in range(len(pins) - 1, -1, -1):
            number[classes[pins[i][0]]] = i
        reasons = [reason for _, reason in pins]
        for labels, reason in self._suspects:
            c = classes[labels]
            told = [
                i
                for i in np.unique(number[c]).tolist()
                if i >= 0 and not (reasons[i].boundary or reasons[i].fixed_by_code)
            ]
            number[c[np.isin(number[c], told)]] = len(reasons)
            reasons.append(reason)
        return number, reasons

    def ties_among(self, labels: Ints, classes: Ints) -> tuple[list[str], bool]:
        """Explain why labels of one class are one: the causes that joined them, and whether all were counts."""
        parent: dict[int, int] = {}
        asked = set(labels.tolist())

        def root(label: int) -> int:
            while (above := parent.get(label, label)) != label:
                parent[label] = label = parent.get(above, above)
            return label

        causes: dict[str, bool] = {}
        this = classes[labels[0]]
        for edge in self._edges:
            chosen = np.flatnonzero(classes[edge.a] == this)
            for a, b in zip(edge.a[chosen].tolist(), edge.b[chosen].tolist(), strict=True):
                a, b = root(a), root(b)
                if a == b:
                    continue
                parent[a] = b
                if a in asked and b in asked:
                    causes[edge.cause] = causes.get(edge.cause, True) and edge.counted
                elif a in asked:
                    asked.add(b)
        return list(causes), all(causes.values())
