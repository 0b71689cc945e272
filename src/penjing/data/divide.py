"""Pick a class-balanced part of a set: the share of each class by the method of largest remainders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from penjing.core.errors import DataError
from penjing.core.random import stream

Labels = npt.NDArray[np.int64]


def count_of(part: float, total: int, what: str) -> int:
    """Return how many of ``total`` pictures a fraction below 1, rounded up, or a count asks for.

    Raises: DataError for anything else; ``what`` names the option in the message.

    >>> count_of(0.2, 1797, "test"), count_of(500, 1797, "test")
    (360, 500)
    """
    if isinstance(part, bool) or not isinstance(part, int | float):
        raise DataError(f"{what} = {part!r} is not right: give a fraction such as 0.1 or a count such as 5000.")
    if isinstance(part, int):
        if part < 1:
            raise DataError(f"{what} = {part} is not right: a count of pictures is at least 1.")
        return part
    if not 0 < part < 1:
        raise DataError(
            f"{what} = {part} is not right: a fraction lies between 0 and 1; write a count without a point."
        )
    # 0.1 * 30 is 3.0000000000000004, which must not become 4.
    return int(np.ceil(part * total - 1e-9))


def balance_of(labels: Labels, n: int) -> Labels:
    """Return what a part of ``n`` pictures is balanced by: their classes, or, where they have none, one for all.

    Shapes: [n] or [0] → [n].
    """
    return labels if len(labels) else np.zeros(n, np.int64)


def pick(labels: Labels, count: int, seed: int, name: str, *, leave: int = 0) -> npt.NDArray[np.int64]:
    """Return ``count`` shuffled positions whose classes have the shares they have in ``labels``.

    Every class keeps ``leave`` members unpicked. The result is a pure function of the arguments.

    Raises: DataError when the classes cannot give that many.
    """
    sizes = np.bincount(labels)
    room = np.maximum(sizes - leave, 0)
    if count > room.sum():
        kept = f" when each of {np.count_nonzero(sizes)} classes keeps {leave}" if leave else ""
        raise DataError(f"{count} pictures are asked of {len(labels)}, which give at most {room.sum()}{kept}.")
    rng = stream(seed, name)
    share, remainder = np.divmod(count * sizes, max(len(labels), 1))
    share = np.minimum(share, room)
    # A tie of remainders is drawn, not given to the first classes, which would be favoured in every small pick.
    turn = np.lexsort((rng.random(len(sizes)), -remainder))
    while share.sum() < count:
        open_ = turn[share[turn] < room[turn]]
        share[open_[: count - share.sum()]] += 1
    members = [rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in enumerate(share) if n]
    return rng.permutation(np.concatenate(members)) if members else np.empty(0, np.int64)


def divide(labels: Labels, count: int, seed: int, name: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the positions that stay, in order, and ``count`` class-balanced ones that are cut off, shuffled.

    Raises: DataError when some class would lose its last picture.
    """
    cut = pick(labels, count, seed, name, leave=1)
    return np.setdiff1d(np.arange(len(labels)), cut, assume_unique=True), cut


def check_labels(where: str, labels: Labels, classes: Sequence[str]) -> None:
    """Raise DataError unless every label is a position in ``classes``."""
    if len(labels) == 0:
        raise DataError(f"{where} has no pictures.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(classes):
        wrong = low if low < 0 else high
        raise DataError(f"{where} has the label {wrong}, outside 0 to {len(classes) - 1} ({len(classes)} classes).")


def check_classes(name: str, train: Labels, test: Labels, classes: Sequence[str]) -> None:
    """Raise DataError unless train and test hold the same two or more classes."""
    ours, theirs = set(np.unique(train).tolist()), set(np.unique(test).tolist())
    for one, other, missing in (("test", "train", theirs - ours), ("train", "test", ours - theirs)):
        if missing:
            shown = ", ".join(repr(classes[c]) for c in sorted(missing)[:3])
            more = ", ..." if len(missing) > 3 else ""
            raise DataError(f"{name}: {len(missing)} classes of {one} do not occur in {other} ({shown}{more}).")
    if len(ours) < 2:
        raise DataError(f"{name} has one class only ({classes[ours.pop()]!r}); a classifier needs two or more.")
