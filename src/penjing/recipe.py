"""Recipes: a run as YAML, checked key by key before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from penjing.core.errors import RecipeError, did_you_mean
from penjing.core.registry import build

VERSION = 1
LARGEST_BYTES = 1_000_000


@dataclass(frozen=True)
class Recipe:
    """One run: which model, which data, what budget, which steps.

    ``model`` is ``package.module:builder`` or a network of the zoo; ``weights`` a safetensors file or a ``.pt`` state
    dict. ``data`` is what ``penjing.data.load`` takes. ``target`` says how latency is measured: threads and batch.
    Relative paths are taken from the recipe's folder.
    """

    model: str
    data: str
    budget: Mapping[str, Any] | str = field(default_factory=dict)
    steps: tuple[Any, ...] = ()
    weights: str | None = None
    seed: int = 0
    target: Mapping[str, int] = field(default_factory=dict)
    val: float = 0.1
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    penjing: int = VERSION


def read(path: Path, changes: Mapping[str, str] | None = None) -> Recipe:
    """Read a recipe file; ``changes`` sets keys, ``steps.1.train.epochs`` among them.

    Raises: RecipeError naming the file and key that is wrong.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise RecipeError(f"{path} has more than {LARGEST_BYTES:,} bytes; that is not a recipe.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read: {error}.") from None
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise RecipeError(f"{path} uses YAML aliases; write the values out.")
        data = yaml.safe_load(text)
        as_written = yaml.BaseLoader(text).get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise RecipeError(f"{path}{where} is not YAML: {getattr(error, 'problem', error)}.") from None
    if not isinstance(data, dict):
        raise RecipeError(f"{path} must hold key: value pairs; it holds {type(data).__name__}.")
    if isinstance(data.get("budget"), dict):
        data["budget"] = as_written["budget"]  # YAML would turn +0.5, a difference, into 0.5, a bound
    for key, value in (changes or {}).items():
        _set(data, key, yaml.safe_load(value))
    return parse(data, str(path))


def parse(data: Mapping[str, Any], where: str) -> Recipe:
    """Check a recipe's keys and build nothing but its steps.

    Raises: RecipeError naming the key.
    """
    known = [f.name for f in fields(Recipe)]
    for key in data:
        if key not in known:
            raise RecipeError(f"{where} has an unknown key {key!r}.{did_you_mean(str(key), known)}")
    for key in ("model", "data", "steps"):
        if not data.get(key):
            raise RecipeError(f"{where} needs {key!r}.")
    if data.get("penjing", VERSION) != VERSION:
        raise RecipeError(f"{where} is for recipe version {data['penjing']}; this is version {VERSION}.")
    if not isinstance(data["steps"], list):
        raise RecipeError(f"{where}: steps must be a list, such as [prune, train].")
    target = data.get("target") or {}
    if not isinstance(target, Mapping) or any(key not in ("threads", "batch") for key in target):
        raise RecipeError(f"{where}: target takes threads and batch; got {target!r}.")
    values = dict(data) | {"steps": tuple(build("step", step) for step in data["steps"])}
    for key in ("mean", "std"):
        if values.get(key) is not None:
            values[key] = tuple(float(v) for v in values[key])
    return Recipe(**values)


def _set(data: Any, key: str, value: Any) -> None:
    """Set ``a.0.b`` inside nested mappings and lists; a step written as a bare name becomes a mapping."""
    *path, last = key.split(".")
    for i, part in enumerate(path):
        try:
            if isinstance(data, list):
                index = int(part)
                if isinstance(data[index], str):
                    data[index] = {data[index]: {}}
                data = data[index]
            else:
                if data.get(part) is None:
                    data[part] = {}
                data = data[part]
        except (ValueError, IndexError, AttributeError):
            raise RecipeError(f"--set {key}: there is nothing at {'.'.join(path[: i + 1])}.") from None
    if isinstance(data, list):
        data[int(last)] = value
    elif isinstance(data, dict):
        data[last] = value
    else:
        raise RecipeError(f"--set {key}: {'.'.join(path)} holds a value, not keys.")
