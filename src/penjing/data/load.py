"""Turn what a user calls their data into three splits."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penjing.core.errors import DataError, did_you_mean
from penjing.data.divide import balance_of, check_classes, check_labels, count_of, divide

if TYPE_CHECKING:
    from penjing.data.data import Data
    from penjing.data.parts import Parts
    from penjing.data.splits import Split


def load(
    spec: str | Path,
    *,
    val: float = 0.1,
    seed: int = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    root: str | Path | None = None,
    side: int | None = None,
) -> Data:
    """Load a data set by name, folder or function, and cut a class-balanced validation split from its train part.

    ``spec`` is ``"digits"`` (scikit-learn's; ``"digits:3"`` is another split of them); a folder with train.npz and
    test.npz, with train/CLASS/ and test/CLASS/ (or val/CLASS/), with CLASS/ alone, or with pictures that have no
    class; ``torchvision:CIFAR10``, or the bare name, whose files already lie in ``root``; or
    ``package.module:function``. A relative folder is looked for below ``root``.

    ``val`` is a fraction of train or a count; a set that brings its own val beside train and test keeps it. ``seed``
    draws what is cut; the digits' splits have numbers instead, and no seed moves them.
    ``mean`` and ``std`` default to train's own for pictures in memory, ImageNet's for folders of pictures,
    and fixed ones for the digits. One number each reads a folder of pictures as grey. ``side`` is what pictures of a
    folder are brought to, by default their own side, 224 at most.

    Raises: DataError saying in one sentence what is wrong with which file, class or option.
    """
    found = _read(spec, seed, root)
    return _divided(found if side is None else brought_to(found, side), val, seed, mean, std)


def from_parts(found: Any, name: str = "loaders", *, val: float = 0.1, seed: int = 0) -> Data:
    """Return a data set of your own datasets or loaders: (train, test), (train, val, test) or a dict with these keys.

    Each is a dataset of (x, y) pairs, a DataLoader, or any other iterable of (x, y) batches; x is normalised already,
    y a class a picture, or a mask of classes. Where they give x alone, one of them will do, or a tensor of pictures.
    Without a validation of its own one is cut from train, as in ``load``. ``name`` is what messages call the set.

    Raises: DataError saying in one sentence what is wrong with which part.
    """
    from penjing.data.user import read_parts

    return _divided(read_parts(found, name), val, seed, None, None)


def as_data(data: Any, *, val: float = 0.1, seed: int = 0) -> Data:
    """Return what a user gives as data as three splits: ``Data`` as it is, names by ``load``, others by ``from_parts``.

    Raises: DataError for anything else, such as a single loader, in one sentence.
    """
    from penjing.data.data import Data

    if isinstance(data, Data):
        return data
    if isinstance(data, str | Path):
        return load(data, val=val, seed=seed)
    if isinstance(data, tuple | list | Mapping) or any(
        hasattr(data, name) for name in ("__iter__", "__getitem__", "batches")
    ):
        return from_parts(data, val=val, seed=seed)
    raise DataError(
        f"The data is {type(data).__name__}; give a folder, a name, (train, test), (train, val, test) "
        "or a dict of these."
    )


def digits(*, val: float = 0.1, split: int = 0) -> Data:
    """Load scikit-learn's 1,797 digits, 8 x 8 and grey; ``split`` numbers the draw of 360 for test and of validation.

    The weights that ship with ``zoo.digits_net`` were trained on train of split 0 with this ``val``: they know no
    picture of its test, whatever ``val`` is, but most test pictures of other splits, and most validation pictures
    under another ``val``.

    Raises: DataError unless ``split`` is a whole number from 0.

    >>> data = digits()
    >>> len(data.train), len(data.val), len(data.test), data.shape
    (1293, 144, 360, (1, 8, 8))
    """
    if isinstance(split, bool) or not isinstance(split, int) or split < 0:
        raise DataError(f"split = {split!r} is not right: the digits' splits are numbered from 0.")
    return load(f"digits:{split}", val=val)


def cifar10(
    root: str | Path,
    *,
    val: float = 0.1,
    seed: int = 0,
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
) -> Data:
    """Load CIFAR-10 from a folder with train.npz and test.npz, with the statistics common for trained weights.

    Differs: these are ImageNet's, which the widely shared CIFAR ResNets were trained with; give CIFAR's own
    where weights ask for them.
    """
    return load(Path(root), val=val, seed=seed, mean=mean, std=std)


def brought_to(parts: Parts, side: int) -> Parts:
    """Return a set of picture files whose pictures have another side.

    Raises: DataError for a set whose pictures are in memory, where they have the size that they have.
    """
    from penjing.data.folder import scale_of
    from penjing.data.splits import FolderSplit

    if isinstance(side, bool) or not isinstance(side, int) or side < 1:
        raise DataError(f"side = {side!r} is not right: it is a whole number of pixels, 1 or more.")
    given = {"train": parts.train, "val": parts.val, "test": parts.test}
    splits: dict[str, Any] = {name: split for name, split in given.items() if split is not None}
    if not all(isinstance(split, FolderSplit) for split in splits.values()):
        raise DataError(f"{parts.name} has no picture files to bring to a side of {side}; leave side out.")
    sized = {name: dataclasses.replace(one, size=side, scale=scale_of(side)) for name, one in splits.items()}
    return dataclasses.replace(parts, **sized)


def _read(spec: str | Path, seed: int, root: str | Path | None) -> Parts:
    """Return the parts of the data set that ``spec`` means."""
    from penjing.data.arrays import read_digits, read_torchvision, torchvision_names
    from penjing.data.folder import read_folder

    base = Path() if root is None else Path(root)
    folder = base / Path(spec).expanduser()
    if isinstance(spec, str) and (found := re.fullmatch(r"digits(?::(.*))?", spec)):
        number = found[1]
        if number is None or re.fullmatch(r"[0-9]+", number):
            return read_digits(int(number or 0))
        if not number.isidentifier():  # which would be a function in the user's own digits.py
            raise DataError(f"{spec!r} is no split of the digits; write digits, or digits:3 for split number 3.")
    if isinstance(spec, Path) or folder.exists():
        return read_folder(folder)
    if spec.startswith("torchvision:"):
        return read_torchvision(spec.removeprefix("torchvision:"), base)
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", spec):
        from penjing.data.user import read_function

        return read_function(spec)
    if not spec.isidentifier():
        return read_folder(folder)
    known = torchvision_names() or []
    if spec in known:
        return read_torchvision(spec, base)
    raise DataError(
        f"There is no data set {spec!r}: no folder {folder.resolve()}, and no such name in penjing"
        f"{' or torchvision' if known else '; torchvision is not installed'}.{did_you_mean(spec, ['digits', *known])}"
    )


def _divided(parts: Parts, val: float, seed: int, mean: Sequence[float] | None, std: Sequence[float] | None) -> Data:
    """Check the parts, cut validation where there is none, and normalise."""
    train, kept, test = parts.train, parts.val, parts.test
    found = {part: split for part, split in (("train", train), ("val", kept), ("test", test)) if split is not None}
    for part, split in found.items():
        _check_part(f"{parts.name}, {part},", split, parts.classes)
    if parts.classes:
        check_classes(parts.name, train.labels, test.labels, parts.classes)
    if kept is None:
        count = count_of(val, len(train), "val")
        try:
            rest, cut = divide(
                balance_of(train.labels, len(train)), count, seed if parts.seed is None else parts.seed, "data/val"
            )
        except DataError as error:
            raise DataError(f"{parts.name}, val = {val}: {error}") from None
        train, kept = train.subset(rest), train.subset(cut)
    return _normalised(parts, (train, kept, test), mean, std)


def _check_part(where: str, split: Split, classes: Sequence[str]) -> None:
    """Raise DataError for a split without pictures, with wrong labels, or with classes where train has none."""
    if not len(split):
        raise DataError(f"{where} has no pictures.")
    if bool(classes) != bool(len(split.labels)):
        here, there = ("a", "no") if len(split.labels) else ("no", "a")
        raise DataError(f"{where} has {here} class for each picture, and train has {there} class; give both alike.")
    if classes:
        check_labels(where, split.labels, classes)


def _normalised(
    parts: Parts, splits: tuple[Split, Split, Split], mean: Sequence[float] | None, std: Sequence[float] | None
) -> Data:
    """Return the record, each split with the mean and std that were given, are usual, or are measured on train."""
    from penjing.data.data import Data

    if (mean is None) != (std is None):
        raise DataError(f"Only {'std' if mean is None else 'mean'} is given; give mean and std together, or neither.")
    train: Any = splits[0]
    if parts.finished:
        if mean is not None:
            raise DataError(f"{parts.name} gives finished tensors: normalise there, and leave mean and std out.")
        shape: Any = tuple(next(train.batches(1))[0].shape[1:])
        return Data(parts.name, train, splits[1], splits[2], parts.classes, shape)
    numbers: Any = (mean, std) if mean is not None else (parts.mean, parts.std)
    if numbers[0] is None:
        numbers = train.statistics()
    try:
        mean, std = (tuple(map(float, each)) for each in numbers)
    except (TypeError, ValueError):
        raise DataError(f"mean = {mean!r}, std = {std!r} are not right: give a list of numbers each.") from None
    unfinished: Any = splits
    train, val, test = (dataclasses.replace(split, mean=mean, std=std) for split in unfinished)
    return Data(parts.name, train, val, test, parts.classes, train.shape)
