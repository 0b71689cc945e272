"""Data sets of a user's own: datasets, loaders or splits, given in Python or returned by a function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
)

from penjing.core.errors import DataError, did_you_mean
from penjing.core.importing import call_named
from penjing.data.parts import Parts, without_test
from penjing.data.splits import DatasetSplit, LoaderSplit, Split

KEYS = ("train", "val", "test")


def read_function(spec: str) -> Parts:
    """Call ``package.module:function`` and return what it gives as splits.

    It may return (train, test), (train, val, test), or a dict with these keys, ``val`` optional. Each is a
    dataset of (x, y) pairs, a DataLoader, or any other iterable of (x, y) batches; x is normalised already. Where they
    give x alone, one of them will do, or a tensor of pictures.

    Raises: DataError for a function that does not exist, fails, or returns something else.
    """
    return read_parts(call_named(spec, "function", DataError), spec, "returned")


def read_parts(found: Any, name: str, verb: str = "has") -> Parts:
    """Return (train, test), (train, val, test), or a dict with these keys, as splits; or one of unlabelled pictures.

    ``name`` and ``verb`` begin the messages: who gave them, and how.

    Raises: DataError for anything else.
    """
    alone = _alone(found)
    if alone is not None:
        split = as_split(alone, name)
        if len(split.labels):
            raise DataError(
                f"{name}: a single {type(found).__name__} of labelled pictures; give (train, test) or "
                "(train, val, test), so that there are pictures to test on."
            )
        return Parts(name, *without_test(split, name), (), finished=True)
    parts = {key: as_split(value, f"{name}, {key}") for key, value in _named(name, verb, found).items()}
    if "val" not in parts and isinstance(parts["train"], LoaderSplit):
        raise DataError(
            f"{name} {verb} a train loader from which no validation can be cut; give (train, val, test), "
            "or the dataset in place of the loader."
        )
    classes = _class_names(parts["train"])
    return Parts(name, parts["train"], parts["test"], classes, val=parts.get("val"), finished=True)


def _alone(found: Any) -> Any:
    """Return a dataset, loader or tensor that stands for a whole set; None for anything that names its parts."""
    if isinstance(found, Tensor):
        return TensorDataset(found) if found.ndim == 4 else None
    if isinstance(found, str | tuple | list | Mapping):
        return None
    return found if any(hasattr(found, name) for name in ("__iter__", "__getitem__", "batches")) else None


def as_split(source: Any, where: str) -> Split:
    """Return a user's dataset, loader or split as a split; a DataLoader's dataset is read directly if it can be.

    Raises: DataError; ``where`` names the source in the message.
    """
    if hasattr(source, "batches") and hasattr(source, "subset"):
        split: Split = source
        return split
    if isinstance(source, DataLoader):
        return _from_loader(source)
    if isinstance(source, IterableDataset):
        raise DataError(f"{where}: {type(source).__name__} yields single pictures; wrap it in a DataLoader.")
    if _is_arrays(source):
        raise DataError(f"{where} is tensors or arrays; wrap them: torch.utils.data.TensorDataset(x, y).")
    if hasattr(source, "__getitem__") and hasattr(source, "__len__") and not isinstance(source, Mapping):
        if len(source) == 0:
            raise DataError(f"{where} has no pictures.")
        # A list of batches is a loader, a list of pictures a dataset: the first entry tells.
        first = None if isinstance(source, Dataset) else source[0]
        is_batch = isinstance(first, list | tuple) and getattr(first[0], "ndim", 3) == 4
        return LoaderSplit(source) if is_batch else DatasetSplit(source)
    if hasattr(source, "__iter__") and not isinstance(source, Mapping | str):
        return LoaderSplit(source)
    raise DataError(f"{where} is {type(source).__name__}; penjing wants a dataset of (x, y) pairs or a loader.")


def _is_arrays(source: Any) -> bool:
    """Tell whether something is pictures or (pictures, labels) themselves and not a dataset of them."""
    first = source[0] if isinstance(source, list | tuple) and source else source
    return isinstance(first, Tensor | np.ndarray)


def _from_loader(loader: DataLoader[Any]) -> Split:
    """Return the loader's dataset where only its order would be lost; a special sampler keeps the loader."""
    plain = type(loader.batch_sampler) is BatchSampler and not isinstance(loader.dataset, IterableDataset)
    sampler: Any = loader.sampler
    if plain and type(sampler) is SubsetRandomSampler:
        # The positions it leaves out may well be the user's own validation.
        return DatasetSplit(
            loader.dataset, np.asarray(sampler.indices, np.int64), loader.collate_fn, loader.num_workers
        )
    every = type(sampler) is SequentialSampler or (
        type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    )
    if plain and every:
        return DatasetSplit(loader.dataset, None, loader.collate_fn, loader.num_workers)
    return LoaderSplit(loader)


def _named(name: str, verb: str, found: Any) -> dict[str, Any]:
    """Return what was given under the names of the splits."""
    if isinstance(found, Mapping):
        for key in found:
            if key not in KEYS:
                raise DataError(f"{name} {verb} the key {key!r}.{did_you_mean(str(key), KEYS)}")
        absent = {"train", "test"} - found.keys()
        if absent:
            raise DataError(f"{name} {verb} no {min(absent)!r}; penjing wants train, test and perhaps val.")
        return {key: value for key, value in found.items() if key != "val" or value is not None}
    if isinstance(found, list | tuple) and len(found) in (2, 3):
        return dict(zip(("train", "test") if len(found) == 2 else KEYS, found, strict=True))
    count = f" of {len(found)}" if isinstance(found, list | tuple) else ""
    ask = "return" if verb == "returned" else "give"
    raise DataError(
        f"{name} {verb} {type(found).__name__}{count}; {ask} (train, test), (train, val, test) or a dict of these."
    )


def _class_names(train: Split) -> tuple[str, ...]:
    """Return the names the dataset lists, or the numbers up to the largest label; none where pictures have no class."""
    if len(train) and not len(train.labels):
        return ()
    needed = int(train.labels.max()) + 1 if len(train) else 0
    holder: Any = train
    while not hasattr(holder, "classes") and (hasattr(holder, "dataset") or hasattr(holder, "loader")):
        holder = holder.dataset if hasattr(holder, "dataset") else holder.loader
    names = getattr(holder, "classes", None)
    if isinstance(names, list | tuple) and len(names) >= needed:
        return tuple(map(str, names))
    return tuple(map(str, range(needed)))
