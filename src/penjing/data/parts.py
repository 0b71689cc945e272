"""What a reader hands over before validation is cut and pictures are normalised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penjing.core.errors import DataError
from penjing.data.divide import balance_of, count_of, divide
from penjing.data.splits import Split

TEST = 0.2
"""The share that is cut off as test where a set has none."""


@dataclass(frozen=True, eq=False)
class Parts:
    """The splits as found, without a ``val`` where it is to be cut from train; ``classes`` may be none.

    ``mean`` and ``std`` are the set's usual ones, or None where train's own are to be measured. ``finished``
    splits give tensors that are normalised already. ``seed`` cuts validation in place of the caller's, where the set
    has splits of its own.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    val: Split | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    finished: bool = False
    seed: int | None = None


def without_test(whole: Split, name: str) -> tuple[Any, Any]:
    """Return what is left for train, and a class-balanced fifth for test, the same one always.

    Raises: DataError when there is too little for both.
    """
    try:
        rest, cut = divide(balance_of(whole.labels, len(whole)), count_of(TEST, len(whole), "test"), 0, "data/test")
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    return whole.subset(rest), whole.subset(cut)
