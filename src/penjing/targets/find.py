"""Targets by name, and from files."""

from __future__ import annotations

import os
from pathlib import Path

from penjing.core.errors import RecipeError, did_you_mean
from penjing.targets.accelerator import Accelerator
from penjing.targets.read import read
from penjing.targets.runtime import Runtime

PRESETS = Path(__file__).parent / "presets"
SUFFIXES = (".yaml", ".yml")


def names() -> list[str]:
    """Return the names of the targets that penjing brings along.

    >>> "eyeriss_v1" in names()
    True
    """
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def find(spec: str | Path) -> Accelerator | Runtime:
    """Return a target by a preset's name, or from a YAML file.

    Raises: RecipeError for a name that there is not, or naming the file and the key that is wrong.

    >>> find("edge_tpu_like").precision
    'int8'
    """
    if isinstance(spec, str) and spec in names():
        return read(PRESETS / f"{spec}.yaml")
    path = Path(spec)
    if isinstance(spec, Path) or path.suffix in SUFFIXES or os.sep in spec:
        return read(path)
    raise RecipeError(
        f"There is no target {spec!r}.{did_you_mean(spec, names())} A file of your own ends in {SUFFIXES[0]}."
    )
