"""One part of a data set, whatever holds it: arrays, picture files, a user's dataset or a user's loader.

Each split gives the same batches again for the same seed and epoch, and can be cut by positions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset, default_collate

from penjing.core.errors import DataError
from penjing.core.random import stream, torch_stream
from penjing.data import decode
from penjing.data.augment import Pictures, channel_statistics, normalise, shift_and_flip
from penjing.data.divide import Labels
from penjing.data.pairs import Batches, labels_of, pairs

Indices = Sequence[int] | npt.NDArray[np.int64]

THREADS = 4
"""Threads that decode pictures; more than the cores is of use, since reading waits for the disk."""


class Split(Protocol):
    """Pictures, labelled or not, that can be counted, read in batches and cut."""

    def __len__(self) -> int: ...

    @property
    def labels(self) -> Labels:
        """Return the class of each picture; nothing where pictures have no class.

        Shapes: [n], or [0].
        """
        ...

    def batches(
        self, size: int, *, seed: int | None = None, epoch: int = 0, augment: bool = False, view: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield pictures and labels, None where there are none; the last batch may be smaller.

        Without a seed the order is fixed. With one it is shuffled, order and augmentation depend on seed and
        epoch alone, and a last batch of one picture is dropped: batch norm cannot train on it. With a ``view``
        augmentation depends on that in place of the epoch, so that epochs may see the same views in another order.

        Shapes: x float32 [n, c, h, w], y int64 [n], or [n, h, w] where labels are masks.
        """
        ...

    def subset(self, indices: Indices) -> Split:
        """Return the pictures at these positions, in this order."""
        ...


def order(n: int, size: int, seed: int | None, epoch: int) -> list[npt.NDArray[np.int64]]:
    """Return the positions of each batch.

    >>> [len(part) for part in order(9, 4, None, 0)], [len(part) for part in order(9, 4, 7, 0)]
    ([4, 4, 1], [4, 4])
    """
    if size < 1:
        raise DataError(f"A batch of {size} pictures is not possible; ask for 1 or more.")
    positions = np.arange(n) if seed is None else stream(seed, f"order/{epoch}").permutation(n)
    parts = [positions[start : start + size] for start in range(0, n, size)]
    if seed is not None and _useless(len(parts[-1]) if parts else 0, size, n):
        parts.pop()
    return parts


def _useless(last: int, size: int, n: int) -> bool:
    """Tell whether training should skip a last batch of one: not where single pictures were asked, or all there is."""
    return last == 1 and size > 1 and n > 1


@dataclass(frozen=True, eq=False, repr=False)
class ArraySplit:
    """Pictures in memory; augmentation shifts by up to ``padding`` pixels and, with ``flip``, mirrors half.

    Shapes: images uint8 [n, h, w, c], labels [n], mean and std of length c on the scale 0 to 1.
    Raises: DataError when these do not agree.
    """

    images: Pictures
    labels: Labels
    mean: tuple[float, ...]
    std: tuple[float, ...]
    padding: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise DataError(
                f"Pictures are {self.images.dtype} {list(self.images.shape)}; penjing wants uint8 [n, h, w, c]."
            )
        object.__setattr__(self, "labels", _as_labels(self.labels, len(self.images)))
        check_statistics(self.mean, self.std, self.images.shape[3])

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return channels, height and width."""
        _, h, w, c = self.images.shape
        return c, h, w

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the pictures' own mean and standard deviation by channel."""
        return channel_statistics(self.images)

    def batches(
        self, size: int, *, seed: int | None = None, epoch: int = 0, augment: bool = False, view: int | None = None
    ) -> Batches:
        """Yield pictures and labels, as ``Split`` says; augmentation without a seed draws as with seed 0."""
        if augment:
            # Drawn for the whole epoch, so that a picture's fate does not depend on the batch size.
            rng = stream(seed or 0, f"augment/{epoch if view is None else view}")
            corners = rng.integers(0, 2 * self.padding + 1, (len(self), 2))
            mirrored = rng.random(len(self)) < 0.5 * self.flip
        for part in order(len(self), size, seed, epoch):
            pictures = self.images[part]
            if augment:
                pictures = shift_and_flip(pictures, self.padding, corners[part], mirrored[part])
            yield normalise(pictures, self.mean, self.std), torch.from_numpy(self.labels[part])

    def subset(self, indices: Indices) -> ArraySplit:
        """Return the pictures at these positions, copied."""
        at = np.asarray(indices, np.int64)
        return ArraySplit(self.images[at], self.labels[at], self.mean, self.std, self.padding, self.flip)


@dataclass(frozen=True, eq=False, repr=False)
class FolderSplit:
    """Picture files, decoded as they are needed, as squares of ``size`` pixels; without ``labels`` where it has none.

    Reading for evaluation resizes and cuts out the centre; augmentation cuts out a random part whose area is
    within ``scale`` of the whole, and mirrors half. One ``mean`` makes the pictures grey, three make them RGB.

    Shapes: labels [n], one for each path, or [0]; mean and std of length 1 or 3 on the scale 0 to 1.
    Raises: DataError when these do not agree, and while reading, naming a file that cannot be decoded.
    """

    paths: tuple[Path, ...]
    labels: Labels
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: tuple[float, float] = (0.08, 1.0)

    def __post_init__(self) -> None:
        if len(self.labels):
            object.__setattr__(self, "labels", _as_labels(self.labels, len(self.paths)))
        check_statistics(self.mean, self.std, 1 if len(self.mean) == 1 else 3)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return channels, height and width."""
        return len(self.mean), self.size, self.size

    def batches(
        self, size: int, *, seed: int | None = None, epoch: int = 0, augment: bool = False, view: int | None = None
    ) -> Batches:
        """Yield pictures and labels, as ``Split`` says; augmentation without a seed draws as with seed 0."""
        draws = (
            stream(seed or 0, f"augment/{epoch if view is None else view}").random((len(self), 5)) if augment else None
        )
        parts = order(len(self), size, seed, epoch)
        pool = ThreadPoolExecutor(THREADS)
        waiting: deque[tuple[npt.NDArray[np.int64], list[Future[Pictures]]]] = deque()
        try:
            for part in parts:
                waiting.append((part, [pool.submit(self._picture, i, draws) for i in part.tolist()]))
                # One batch is decoded while the caller works on the one before it.
                if len(waiting) > 1:
                    yield self._ready(*waiting.popleft())
            while waiting:
                yield self._ready(*waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _picture(self, i: int, draws: npt.NDArray[np.float64] | None) -> Pictures:
        if draws is None:
            return decode.centre(self.paths[i], self.size, len(self.mean))
        return decode.random_crop(self.paths[i], self.size, len(self.mean), self.scale, draws[i])

    def _ready(self, part: npt.NDArray[np.int64], pictures: list[Future[Pictures]]) -> tuple[Tensor, Tensor | None]:
        x = np.stack([picture.result() for picture in pictures])
        return normalise(x, self.mean, self.std), torch.from_numpy(self.labels[part]) if len(self.labels) else None

    def subset(self, indices: Indices) -> FolderSplit:
        """Return the pictures at these positions."""
        at = np.asarray(indices, np.int64)
        paths = tuple(self.paths[i] for i in at.tolist())
        labels = self.labels[at] if len(self.labels) else self.labels
        return FolderSplit(paths, labels, self.size, self.mean, self.std, self.scale)


@dataclass(frozen=True, eq=False, repr=False)
class DatasetSplit:
    """A user's map-style dataset of (x, y) pairs or of x alone, normalised and augmented as the user wrote it.

    Differs: ``augment`` and ``view`` are not obeyed, and repeats only as far as the dataset's own randomness does.
    """

    dataset: Any
    indices: npt.NDArray[np.int64] | None = None
    collate: Callable[[list[Any]], Any] = default_collate
    workers: int = 0

    def __len__(self) -> int:
        return len(self.dataset) if self.indices is None else len(self.indices)

    @cached_property
    def labels(self) -> Labels:
        """Return the class of each picture, from the dataset's own list or else by reading it once.

        Shapes: [n], or [0] where pictures have no class.
        """
        listed = _listed_labels(self.dataset)
        if listed is not None:
            return listed if self.indices is None else listed[self.indices]
        first = next(self.batches(1), None)
        if first is None or not len(labels_of(first)):  # nothing worth reading it all for
            return np.empty(0, np.int64)
        return np.concatenate([labels_of(pair) for pair in self.batches(256)])

    def batches(
        self, size: int, *, seed: int | None = None, epoch: int = 0, augment: bool = False, view: int | None = None
    ) -> Batches:
        """Yield pictures and labels, as ``Split`` says."""
        positions = np.arange(len(self)) if self.indices is None else self.indices
        loader = DataLoader(
            self.dataset,
            batch_sampler=[positions[part].tolist() for part in order(len(self), size, seed, epoch)],
            collate_fn=self.collate,
            num_workers=self.workers,
            generator=torch_stream(seed or 0, f"workers/{epoch}"),  # or the global generator would be drawn from
        )
        yield from pairs(loader, type(self.dataset).__name__)

    def subset(self, indices: Indices) -> DatasetSplit:
        """Return the pictures at these positions."""
        at = np.asarray(indices, np.int64)
        return DatasetSplit(self.dataset, at if self.indices is None else self.indices[at], self.collate, self.workers)


@dataclass(frozen=True, eq=False, repr=False)
class LoaderSplit:
    """A user's loader: anything that yields batches, (x, y) or x alone, each time it is iterated.

    Differs: order and augmentation are the loader's own; ``seed``, ``epoch``, ``augment`` and ``view`` change
    nothing.
    Raises: DataError for an iterator, which could be read only once.
    """

    loader: Iterable[Any]

    def __post_init__(self) -> None:
        if isinstance(self.loader, Iterator):
            raise DataError(
                f"{type(self.loader).__name__} can be read only once; give the loader, not iter(loader) or a generator."
            )

    def __len__(self) -> int:
        return len(self._read[1])

    @property
    def labels(self) -> Labels:
        """Return the class of each picture, by reading the loader once.

        Shapes: [n], or [0] where pictures have no class.
        """
        return self._read[0]

    @cached_property
    def _read(self) -> tuple[Labels, npt.NDArray[np.float64]]:
        """The labels, and a number that tells each picture from others."""
        found = [(labels_of((x, y)), _marks(x)) for x, y in self._pairs()]
        labels = [label for label, _ in found] or [np.empty(0, np.int64)]
        return np.concatenate(labels), np.concatenate([mark for _, mark in found] or [np.empty(0)])

    def batches(
        self, size: int, *, seed: int | None = None, epoch: int = 0, augment: bool = False, view: int | None = None
    ) -> Batches:
        """Yield the loader's pictures and labels in batches of ``size``."""
        if size < 1:
            raise DataError(f"A batch of {size} pictures is not possible; ask for 1 or more.")
        x, y = torch.empty(0), None
        seen = 0
        for more_x, more_y in self._pairs():
            x, y = (torch.cat([x, more_x]), _joined(y, more_y)) if len(x) else (more_x, more_y)
            seen += len(more_x)
            while len(x) >= size:
                yield x[:size], None if y is None else y[:size]
                x, y = x[size:], None if y is None else y[size:]
        if len(x) and (seed is None or not _useless(len(x), size, seen)):
            yield x, y

    def subset(self, indices: Indices) -> DatasetSplit:
        """Return the pictures at these positions, read once and held in memory.

        Raises: DataError when the loader changes its order, so that a position means nothing.
        """
        at = np.asarray(indices, np.int64)
        held: dict[int, tuple[Tensor, ...]] = {}
        wanted = set(at.tolist())
        labels, marks = self._read
        start = 0
        for x, y in self._pairs():
            end = start + len(x)
            same = labels_of((x, y)), labels[start:end]
            if not np.array_equal(*(same if len(labels) else (_marks(x), marks[start:end]))):
                raise DataError(
                    f"{type(self.loader).__name__} changes its order from pass to pass, so no part can be cut from it; "
                    "turn its shuffling off, or give the dataset instead of the loader."
                )
            tensors = (x,) if y is None else (x, y)
            held.update({start + i: tuple(t[i] for t in tensors) for i in range(len(x)) if start + i in wanted})
            start = end
        columns = zip(*(held[i] for i in at.tolist()), strict=True)
        stacked = [torch.stack(column) for column in columns] or [torch.empty(0)]
        return DatasetSplit(TensorDataset(*stacked))

    def _pairs(self) -> Batches:
        return pairs(self.loader, type(self.loader).__name__)


def _marks(x: Tensor) -> npt.NDArray[np.float64]:
    return x.double().flatten(1).sum(1).numpy()


def _joined(y: Tensor | None, more: Tensor | None) -> Tensor | None:
    return None if y is None or more is None else torch.cat([y, more])


def check_statistics(mean: Sequence[float], std: Sequence[float], channels: int) -> None:
    """Raise DataError unless both have a number for each channel and every deviation is above 0."""
    if len(mean) != channels or len(std) != channels:
        raise DataError(
            f"mean has {len(mean)} and std {len(std)} numbers; the pictures have {channels} channels, "
            f"so give {channels} of each."
        )
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and min(std) > 0):
        raise DataError(f"mean = {list(mean)}, std = {list(std)}: all must be finite and std above 0.")


def _as_labels(labels: npt.NDArray[Any], n: int) -> Labels:
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != (n,):
        raise DataError(f"Labels are {labels.dtype} {list(labels.shape)}; {n} pictures need integers [{n}].")
    return labels.astype(np.int64, copy=False)


def _listed_labels(dataset: Any) -> Labels | None:
    """Return the labels a dataset lists, or None where only reading it tells them."""
    from torch.utils.data import Subset

    if isinstance(dataset, Subset):
        inner = _listed_labels(dataset.dataset)
        return None if inner is None else inner[np.asarray(dataset.indices, np.int64)]
    if getattr(dataset, "target_transform", None) is not None:
        return None
    for name in ("targets", "labels"):
        listed = getattr(dataset, name, None)
        if isinstance(listed, list | tuple | np.ndarray | Tensor):
            array = np.asarray(listed)
            if np.issubdtype(array.dtype, np.integer) and array.shape == (len(dataset),):
                return array.astype(np.int64)
    return None
