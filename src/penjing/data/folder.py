"""Data sets on disk: a folder with .npz files, or with one folder of pictures for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from penjing.core.errors import DataError
from penjing.data.arrays import read_npz
from penjing.data.decode import SUFFIXES, size_of
from penjing.data.divide import Labels
from penjing.data.parts import Parts, without_test
from penjing.data.splits import FolderSplit

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

LARGEST = 224
"""The side that pictures are brought to, unless they are smaller themselves."""

SMALL = 96
"""Below this side a crop of 8 % of the area would leave a handful of pixels, so crops stay above 60 %."""


def read_folder(folder: Path) -> Parts:
    """Return the data set in ``folder``, whichever of the layouts it has.

    train.npz and test.npz; or train/CLASS/ with test/CLASS/ (where there is no test/, val/CLASS/ is the test);
    or CLASS/ alone, from which a class-balanced fifth is drawn as test: the same one always, whatever the run's seed,
    so that weights trained on the rest never meet their own pictures there. Pictures without any folder have no
    classes; of them, too, a fifth is test.

    Raises: DataError saying what was looked for and what was found.
    """
    if not folder.is_dir():
        what = "is a file; give the folder it lies in" if folder.exists() else "does not exist"
        raise DataError(f"The data folder {folder.resolve()} {what}.")
    if (folder / "train.npz").is_file() or (folder / "test.npz").is_file():
        return read_npz(folder)
    name = folder.resolve().name
    if (folder / "train").is_dir():
        others = [part for part in ("test", "val") if (folder / part).is_dir()]
        if not others:
            raise DataError(f"{folder} has train/ but neither test/ nor val/ beside it.")
        train, classes, size = _read_classes(folder / "train", None)
        test, theirs, _ = _read_classes(folder / others[0], size)
        _same(folder, others[0], classes, theirs)
        val = None
        if len(others) == 2:
            val, theirs, _ = _read_classes(folder / "val", size)
            _same(folder, "val", classes, theirs)
        return Parts(name, train, test, classes, val=val, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    if _folders(folder):
        whole, classes, _ = _read_classes(folder, None)
        _check_sizes(folder, whole.labels, classes, np.bincount(whole.labels) < 2)
        train, test = without_test(whole, name)
        _check_sizes(folder, whole.labels, classes, np.bincount(test.labels, minlength=len(classes)) == 0)
        return Parts(name, train, test, classes, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    if pictures := _pictures(folder):
        whole = _split(pictures, np.empty(0, np.int64), min(LARGEST, *size_of(pictures[0])))
        return Parts(name, *without_test(whole, name), (), mean=IMAGENET_MEAN, std=IMAGENET_STD)
    entries = sorted(entry.name for entry in folder.iterdir())
    found = ", ".join(entries[:3]) + (", ..." if len(entries) > 3 else "") if entries else "nothing"
    raise DataError(
        f"{folder} holds {found}; looked for train.npz and test.npz, for train/ with test/ or val/, "
        "for one folder of pictures for each class, and for pictures."
    )


def _folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _read_classes(folder: Path, size: int | None) -> tuple[FolderSplit, tuple[str, ...], int]:
    """Return the pictures below ``folder``, the class names, and the side the pictures are brought to."""
    homes = _folders(folder)
    if not homes:
        raise DataError(f"{folder} has no folders; put the pictures of each class in a folder of its name.")
    members = [_pictures(home) for home in homes]
    empty = [home for home, pictures in zip(homes, members, strict=True) if not pictures]
    if empty:
        raise DataError(f"The class folder {empty[0]} has no pictures ({', '.join(sorted(SUFFIXES))}).")
    if size is None:
        # One header for each class: opening a million files to learn their sizes would take minutes.
        size = min(LARGEST, *(min(size_of(pictures[0])) for pictures in members))
    labels = np.repeat(np.arange(len(homes)), [len(pictures) for pictures in members])
    paths = tuple(path for pictures in members for path in pictures)
    return _split(paths, labels, size), tuple(home.name for home in homes), size


def _split(paths: Sequence[Path], labels: Labels, size: int) -> FolderSplit:
    return FolderSplit(tuple(paths), labels, size, IMAGENET_MEAN, IMAGENET_STD, scale_of(size))


def scale_of(size: int) -> tuple[float, float]:
    """Return the shares of a picture's area that crops of it have, by the side that pictures are brought to."""
    return (0.08, 1.0) if size >= SMALL else (0.6, 1.0)


def _check_sizes(folder: Path, labels: Labels, classes: tuple[str, ...], few: npt.NDArray[np.bool_]) -> None:
    """Raise DataError when some class has too few pictures for test to get one of them."""
    if few.any():
        first = int(few.argmax())
        count = int((labels == first).sum())
        noun = "picture" if count == 1 else "pictures"
        raise DataError(
            f"The class folder {folder / classes[first]} has {count} {noun}, too few for test to get a fifth; "
            "add pictures, or lay them out as train/ and test/."
        )


def _same(folder: Path, part: str, ours: tuple[str, ...], theirs: tuple[str, ...]) -> None:
    apart = sorted(set(ours) ^ set(theirs))
    if apart:
        owner = "train" if apart[0] in ours else part
        raise DataError(
            f"{folder}: train/ and {part}/ have different class folders; {len(apart)} are in one only "
            f"(first: {apart[0]!r}, in {owner}/)."
        )
