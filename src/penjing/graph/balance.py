"""Which channels go together where rows of them must lose equally many, for all tables of such rows at once.

The groups of a convolution are such rows, of what it reads and of what it writes, and so are the halves of a tensor
that is split. Where tables share channels but cut them at other places, as behind a shuffle or a concatenation, tying
the same position of all rows of each would soon tie everything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from penjing.core.units import Ints

PINNED = 1000
"""How many classes that may go are rather joined than one that may not."""


def unions(tables: Sequence[Ints], pinned: NDArray[np.bool_]) -> Iterator[tuple[int, list[int]]]:
    """Yield classes that go together, so that whatever unions go, all rows of a table lose equally many.

    Tables are [rows, columns] of classes, ``pinned`` tells of each class that it never goes. Classes that need no other
    are not named. Beside each union is the position of a table that asks for it. Each is the smallest that holds the
    first class left; of labels that nothing ties yet it is a column.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    counts = [(at, *_counts(table)) for at, table in _different(tables)]
    counts = [(at, classes, per_row) for at, classes, per_row in counts if (per_row != per_row[:, :1]).any()]
    if not counts:
        return
    size = len(pinned)
    edges = [np.stack([classes, np.full(len(classes), size + i)]) for i, (_, classes, _) in enumerate(counts)]
    a, b = np.concatenate(edges, axis=1)
    total = size + len(counts)
    graph = coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(total, total))
    component = connected_components(graph, directed=False)[1][size:]
    for c in dict.fromkeys(component.tolist()):
        yield from _joined([counts[i] for i in np.flatnonzero(component == c).tolist()], pinned)


def _different(tables: Sequence[Ints]) -> list[tuple[int, Ints]]:
    """Return the tables once each, with their positions."""
    first: dict[tuple[tuple[int, ...], bytes], int] = {}
    for at, table in enumerate(tables):
        first.setdefault((table.shape, table.tobytes()), at)
    return [(at, tables[at]) for at in first.values()]


def _counts(table: Ints) -> tuple[Ints, Ints]:
    """Return the classes of a table in order of their first column, and how many of each every row has."""
    rows, columns = table.shape
    classes, first, inverse = np.unique(table.T, return_index=True, return_inverse=True)
    found = np.zeros((len(classes), rows), dtype=np.int64)
    np.add.at(found, (inverse.reshape(columns, rows), np.arange(rows)), 1)
    order = np.argsort(first)
    return classes[order], found[order]


def _joined(counts: list[tuple[int, Ints, Ints]], pinned: NDArray[np.bool_]) -> Iterator[tuple[int, list[int]]]:
    """Part the classes of tables that share some."""
    if len(counts) == 1 and (counts[0][2].sum(1) == 1).all() and not pinned[counts[0][1]].any():
        at, classes, per_row = counts[0]
        for column in zip(*(classes[row > 0].tolist() for row in per_row.T), strict=True):
            yield at, list(column)
        return
    classes = np.array(list(dict.fromkeys(np.concatenate([one for _, one, _ in counts]).tolist())))
    place = {int(c): i for i, c in enumerate(classes)}
    off: list[Ints] = []
    for _, some, per_row in counts:
        more = np.zeros((len(classes), per_row.shape[1] - 1), dtype=np.int64)
        more[[place[c] for c in some.tolist()]] = per_row[:, 1:] - per_row[:, :1]
        off.append(more)
    asks = np.stack([(more != 0).any(1) for more in off], axis=1)
    needy = np.flatnonzero(asks.any(1))
    classes, asks, imbalance = classes[needy], asks[needy], np.concatenate(off, axis=1)[needy]
    for members in _parts(imbalance, pinned[classes]):
        yield counts[int(np.argmax(asks[members].sum(0)))][0], classes[members].tolist()


def _parts(imbalance: Ints, pinned: NDArray[np.bool_]) -> Iterator[list[int]]:
    """Part the rows of a matrix, which sum to zero, into sets that do; pinned rows that no other needs are left out."""
    kinds, first, kind = np.unique(np.column_stack([pinned, imbalance]), axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    kinds, kind = kinds[order], np.argsort(order)[kind.ravel()]
    waiting = [deque(np.flatnonzero(kind == k).tolist()) for k in range(len(kinds))]
    left = np.array([len(queue) for queue in waiting])
    while free := [k for k in range(len(kinds)) if left[k] and not kinds[k, 0]]:
        start = min(free, key=lambda k: waiting[k][0])
        taken = np.array(_smallest(kinds.tobytes(), kinds.shape, tuple(left.tolist()), start))
        used = np.flatnonzero(taken)
        for _ in range(int((left[used] // taken[used]).min())):
            yield sorted(waiting[k].popleft() for k in used.tolist() for _ in range(taken[k]))
            left = left - taken


@lru_cache(maxsize=4096)
def _smallest(kinds: bytes, shape: tuple[int, int], left: tuple[int, ...], start: int) -> tuple[int, ...]:
    """Return how many of each kind make the smallest set that sums to zero and holds one of kind ``start``."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    table = np.frombuffer(kinds, dtype=np.int64).reshape(shape)
    least = np.zeros(shape[0])
    least[start] = 1
    # Of equally small sets the one of the earliest kinds, so that neighbours go together.
    cost = np.where(table[:, 0] > 0, PINNED, 1) + 1e-4 * np.arange(shape[0]) / shape[0]
    sums = LinearConstraint(table[:, 1:].T, 0, 0)
    found = milp(cost, integrality=np.ones(shape[0], dtype=np.int64), bounds=Bounds(least, left), constraints=sums)
    # All that is left sums to zero, so there is a set at any rate.
    return left if found.x is None else tuple(int(n) for n in np.rint(found.x))
