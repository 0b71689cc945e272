"""How many bytes a finished network takes: as a folder on disk, and of memory when it runs packed."""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch import nn

from penjing.exporting import bundle
from penjing.graph import form


def on_disk(folder: Path) -> int:
    """Return the bytes of a bundle's files."""
    return sum((folder / name).stat().st_size for name in (bundle.WEIGHTS, bundle.MANIFEST))


def in_memory(model: nn.Module) -> int:
    """Return the bytes of a network's parameters and buffers; a packed layer counts what it holds packed."""
    return sum(tensor.nbytes for tensor in form.tensors(model).values())


def of_bundle(folder: Path, original: nn.Module) -> dict[str, int]:
    """Return the bytes of a bundle, and of the weights that it holds in memory when it runs packed.

    Raises: BundleError where it cannot be loaded.
    """
    return {"bundle": on_disk(folder), "packed": in_memory(bundle.load(folder, lambda: original))}


def beside(folder: Path, original: nn.Module) -> dict[str, dict[str, int]]:
    """Return the same of a run's network and of its original, by the names of their rows; nothing where none is packed.

    Raises: BundleError where a bundle cannot be written or loaded.
    """
    if not bundle.read_manifest(folder).packed:
        return {}
    with tempfile.TemporaryDirectory(prefix="penjing-") as scratch:
        whole = bundle.write(Path(scratch) / bundle.BUNDLE, original)
        return {"original": of_bundle(whole, original), "penjing": of_bundle(folder, original)}
