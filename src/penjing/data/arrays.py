"""Data sets that fit in memory: scikit-learn's digits, .npz pairs, and those of torchvision."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from penjing.core.errors import DataError, did_you_mean, reason
from penjing.data.divide import Labels, check_labels, divide
from penjing.data.parts import Parts
from penjing.data.splits import ArraySplit

DIGITS_MEAN, DIGITS_STD = (0.305,), (0.376,)
"""Statistics of all 1,797 digits: fixed, so that trained weights see the same numbers under every split."""

DIGITS_TEST = 360


def read_digits(split: int = 0) -> Parts:
    """Return scikit-learn's 8 x 8 digits: 1,437 to train on and 360 to test.

    ``split`` numbers the draw of test and validation; no run's seed moves it, since weights are trained on one split.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # The levels are 0 to 16; they are spread over the byte so that 16 is white.
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    whole = _split(images[..., None], np.asarray(bunch.target, np.int64))
    rest, cut = divide(whole.labels, DIGITS_TEST, split, "data/test")
    classes = tuple(map(str, range(10)))
    name = f"digits:{split}" if split else "digits"
    train, test = whole.subset(rest), whole.subset(cut)
    return Parts(name, train, test, classes, mean=DIGITS_MEAN, std=DIGITS_STD, seed=split)


def read_npz(folder: Path) -> Parts:
    """Return the data set of a folder with train.npz, test.npz and perhaps val.npz and classes.txt.

    Shapes: each file has x uint8 [n, h, w, c] or [n, h, w] and y integer [n].
    Raises: DataError naming the file and the key.
    """
    files = {part: folder / f"{part}.npz" for part in ("train", "test", "val")}
    for part in ("train", "test"):
        if not files[part].is_file():
            raise DataError(f"{folder} has no {part}.npz; both train.npz and test.npz are needed.")
    found = {part: _read_file(file) for part, file in files.items() if file.is_file()}
    classes = _class_names(folder / "classes.txt", found["train"][1])
    splits = {}
    for part, (images, labels) in found.items():
        check_labels(str(files[part]), labels, classes)
        splits[part] = _split(images, labels)
        if splits[part].shape != splits["train"].shape:
            raise DataError(f"{files[part]} has pictures {splits[part].shape}, train.npz {splits['train'].shape}.")
    return Parts(folder.resolve().name, splits["train"], splits["test"], classes, val=splits.get("val"))


def torchvision_names() -> list[str] | None:
    """Return the names of torchvision's data sets, or None where it is not installed or does not work."""
    try:
        from torchvision import datasets
    except Exception:  # built for another torch, its import fails with a RuntimeError
        return None
    return [name for name in datasets.__all__ if inspect.isclass(getattr(datasets, name, None))]


def read_torchvision(name: str, root: Path) -> Parts:
    """Return a torchvision data set whose files are already in ``root``.

    Only sets that keep all pictures in memory (CIFAR, MNIST and their kin) can be read by name. torchvision itself
    unpickles CIFAR's published files, after comparing their checksums.

    Raises: DataError when torchvision, the set or its files are absent.
    """
    known = torchvision_names()
    if known is None:
        raise DataError(
            f"{name} needs torchvision, which is not installed or does not fit this torch: pip install torchvision, "
            "or give a folder with train.npz and test.npz."
        )
    if name not in known:
        raise DataError(f"torchvision has no data set {name!r}.{did_you_mean(name, known)}")
    from torchvision import datasets

    build = getattr(datasets, name)
    parts = [_torchvision_part(build, name, root, part) for part in ("train", "test")]
    (train, classes), (test, _) = parts
    names = classes or tuple(map(str, range(int(train.labels.max()) + 1)))
    return Parts(name, train, test, names)


def _torchvision_part(build: Any, name: str, root: Path, part: str) -> tuple[ArraySplit, tuple[str, ...]]:
    options = inspect.signature(build).parameters
    which: dict[str, Any] = {"split": part} if "split" in options else {"train": part == "train"}
    if not which.keys() <= options.keys():
        raise DataError(f"torchvision's {name} has no train and test parts; write a package.module:function instead.")
    try:
        dataset = build(root=str(root), **which)
    except Exception as error:
        raise DataError(
            f"torchvision cannot read {name} from {root}, {reason(error)} "
            "penjing downloads nothing: put its files there first."
        ) from error
    images = np.asarray(getattr(dataset, "data", None))
    labels = np.asarray(getattr(dataset, "targets", getattr(dataset, "labels", None)))
    if images.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise DataError(
            f"torchvision's {name} does not keep its pictures in memory; give its folder of class folders, or write "
            "a package.module:function that returns (train, test)."
        )
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    images = images[..., None] if images.ndim == 3 else images
    return _split(np.ascontiguousarray(images), labels), tuple(map(str, getattr(dataset, "classes", ())))


def _split(images: npt.NDArray[np.uint8], labels: npt.NDArray[Any]) -> ArraySplit:
    """Return an unnormalised split that shifts by an eighth of the side, and mirrors colour pictures only.

    Grey pictures are mostly writing, which a mirror spoils.
    """
    channels = images.shape[3]
    padding = max(1, round(min(images.shape[1:3]) / 8))
    return ArraySplit(images, labels, (0.0,) * channels, (1.0,) * channels, padding, flip=channels > 1)


def _read_file(path: Path) -> tuple[npt.NDArray[np.uint8], Labels]:
    try:
        with path.open("rb") as handle:
            file = np.load(handle, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path} is a single array; save x and y with numpy.savez.")
            absent = [key for key in ("x", "y") if key not in file.files]
            if absent:
                raise DataError(f"{path} has no {absent[0]!r}; it holds {', '.join(file.files) or 'nothing'}.")
            x, y = file["x"], file["y"]
    except DataError:
        raise
    except Exception as error:  # a damaged zip fails in as many ways as it has parts
        if "allow_pickle" in str(error) or "pickled" in str(error):
            raise DataError(f"{path} holds Python objects, which could run code; save plain numeric arrays.") from None
        raise DataError(f"{path} cannot be read as .npz: {reason(error)}") from error
    if x.dtype != np.uint8:
        raise DataError(f"{path}: x is {x.dtype}; penjing wants uint8 from 0 to 255.")
    if x.ndim not in (3, 4) or 0 in x.shape[1:]:
        raise DataError(f"{path}: x is {list(x.shape)}; penjing wants [n, h, w, c] or [n, h, w].")
    x = x[..., None] if x.ndim == 3 else x
    if x.shape[3] > 4 and x.shape[1] <= 4:
        raise DataError(f"{path}: x is {list(x.shape)}, channels first; save x.transpose(0, 2, 3, 1).")
    if not np.issubdtype(y.dtype, np.integer) or y.shape != x.shape[:1]:
        raise DataError(f"{path}: y is {y.dtype} {list(y.shape)}; {len(x)} pictures need integers [{len(x)}].")
    if len(x) == 0:
        raise DataError(f"{path} has no pictures.")
    return x, y.astype(np.int64)


def _class_names(path: Path, labels: Labels) -> tuple[str, ...]:
    """Return the names one a line, or the numbers where there is no such file."""
    if not path.is_file():
        found = np.unique(labels)
        gaps = sorted(set(range(int(found[-1]) + 1)) - set(found.tolist()))
        if found[0] >= 0 and gaps:
            raise DataError(
                f"{path.with_name('train.npz')}: labels reach {found[-1]}, but {len(gaps)} below it never occur "
                f"(first: {gaps[0]}); number the classes from 0 without gaps, or name them all in classes.txt."
            )
        return tuple(str(c) for c in range(len(found)))
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}.") from error
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path} names {twice[0]!r} twice.")
    return names
