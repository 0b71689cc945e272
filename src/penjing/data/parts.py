"""What a reader hands over before validation is cut and pictures are normalised."""

from __future__ import annotations

from dataclasses import dataclass

from penjing.data.splits import Split


@dataclass(frozen=True, eq=False)
class Parts:
    """The splits as found, without a ``val`` where it is to be cut from train.

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
