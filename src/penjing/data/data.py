"""The record of a data set: three splits, the names of the classes, and a count of how often test was read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from penjing.core.errors import DataError
from penjing.data.divide import Labels, balance_of, pick
from penjing.data.pairs import Batches
from penjing.data.splits import Indices, Split


@dataclass
class _Reads:
    """How often a split and the parts cut from it were iterated."""

    count: int = 0


@dataclass(frozen=True, eq=False, repr=False)
class CountedSplit:
    """A split that counts how often its pictures are read; parts cut from it count into the same number."""

    split: Split
    reads: _Reads = field(default_factory=_Reads)

    def __len__(self) -> int:
        return len(self.split)

    @property
    def labels(self) -> Labels:
        """Return the class of each picture; looking at labels alone is not counted.

        Shapes: [n], or [0] where pictures have none.
        """
        return self.split.labels

    def batches(
        self, size: int, *, seed: int | None = None, epoch: int = 0, augment: bool = False, view: int | None = None
    ) -> Batches:
        """Yield pictures and labels, as ``Split`` says, and count one read once the first is asked for."""
        self.reads.count += 1
        yield from self.split.batches(size, seed=seed, epoch=epoch, augment=augment, view=view)

    def subset(self, indices: Indices) -> CountedSplit:
        """Return the pictures at these positions."""
        return CountedSplit(self.split.subset(indices), self.reads)


@dataclass(frozen=True, eq=False)
class Data:
    """Three splits and what they show; ``classes`` is empty where pictures have none (no labels, or masks).

    Validation is for choosing, test for the one number at the end: ``test_reads`` tells whether that was kept.

    Shapes: shape (channels, height, width) of one picture.
    """

    name: str
    train: Split = field(repr=False)
    val: Split = field(repr=False)
    test: Split = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        if not isinstance(self.test, CountedSplit):
            object.__setattr__(self, "test", CountedSplit(self.test))

    @property
    def num_classes(self) -> int:
        """Return the number of classes."""
        return len(self.classes)

    @property
    def labelled(self) -> bool:
        """Tell whether every picture has a class, so that there is an accuracy."""
        return bool(self.classes)

    @property
    def test_reads(self) -> int:
        """Return how many times the test split, or a part of it, was iterated."""
        test: Any = self.test
        return int(test.reads.count)

    def example(self, batch: int = 2) -> Tensor:
        """Return the first pictures of train, as evaluation sees them.

        Shapes: float32 [batch, c, h, w], fewer where train is smaller.
        """
        return next(self.train.batches(batch))[0]

    def calibration(self, n: int, seed: int, size: int = 64) -> list[Tensor]:
        """Return ``n`` unlabelled pictures of train, shuffled and class-balanced, in batches of ``size``.

        Asking for more than train has gives all of it.

        Shapes: each float32 [size, c, h, w], the last one smaller.
        Raises: DataError when ``n`` is below 1.
        """
        return [x for x, _ in self.calibration_labelled(n, seed, size)]

    def calibration_labelled(self, n: int, seed: int, size: int = 64) -> list[tuple[Tensor, Tensor | None]]:
        """Return the pictures of ``calibration``, in its order, each batch with its labels; None where it has none.

        Shapes: each float32 [size, c, h, w] and int64 [size] or [size, h, w], the last ones smaller.
        Raises: DataError when ``n`` is below 1.
        """
        if n < 1:
            raise DataError(f"Calibration on {n} pictures is not possible; ask for 1 or more.")
        return list(self.calibration_split(n, seed).batches(size))

    def calibration_split(self, n: int, seed: int) -> Split:
        """Return the pictures of ``calibration``, in its order, as a split."""
        balance = balance_of(self.train.labels, len(self.train))
        return self.train.subset(pick(balance, min(n, len(self.train)), seed, "calibration"))
