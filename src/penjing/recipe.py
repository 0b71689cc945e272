"""Recipes: a run as YAML, checked key by key before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from penjing.core.errors import RecipeError, did_you_mean
from penjing.core.registry import checked
from penjing.steps.order import ordered
from penjing.steps.price import asked

VERSION = 1
LARGEST_BYTES = 1_000_000


@dataclass(frozen=True)
class Recipe:
    """One run: which model, which data, what budget, which steps.

    ``model`` is ``package.module:builder`` or a network of the zoo; ``weights`` a safetensors file or a ``.pt`` state
    dict. ``data`` is what ``penjing.data.load`` takes, ``val`` a share of the training pictures or a count. ``target``
    says how latency is measured: threads and batch. Relative paths are taken from the recipe's folder.
    """

    model: str
    data: str
    budget: Mapping[str, Any] | str = field(default_factory=dict)
    steps: tuple[Any, ...] = ()
    weights: str | None = None
    seed: int = 0
    target: Mapping[str, int] = field(default_factory=dict)
    val: int | float = 0.1
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    penjing: int = VERSION


class _Loader(yaml.SafeLoader):
    """Refuses a key that is written twice, and leaves what a budget says as it is written.

    YAML would turn +0.5, a difference, into 0.5, a bound.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise RecipeError(f"the key {key.value!r} in line {key.start_mark.line + 1} is written twice.")
            seen.add(getattr(key, "value", ""))
        found: dict[Any, Any] = super().construct_mapping(node, deep=True)
        for key, value in node.value:
            if key.value == "budget" and isinstance(value, yaml.MappingNode):
                found["budget"] = {name.value: one.value for name, one in value.value}
        return found


def read(path: Path, changes: Mapping[str, str] | None = None) -> Recipe:
    """Read a recipe file; ``changes`` sets keys, ``steps.1.train.epochs`` among them.

    Raises: RecipeError naming the file and key that is wrong; BudgetError, PlanError or TrainError for a bound or an
    option that cannot be.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise RecipeError(f"{path} has more than {LARGEST_BYTES:,} bytes; that is not a recipe.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read: {error}.") from None
    data = _parsed(text, str(path))
    if not isinstance(data, dict):
        raise RecipeError(f"{path} must hold key: value pairs; it holds {type(data).__name__}.")
    for key, value in (changes or {}).items():
        raw = key.split(".")[-2:-1] == ["budget"]
        _set(data, key, value if raw else _parsed(value, f"--set {key}"))
    return parse(data, str(path))


def _parsed(text: str, where: str) -> Any:
    """Return what YAML says.

    Raises: RecipeError naming the line.
    """
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise RecipeError(f"{where} uses YAML aliases; write the values out.")
        return yaml.load(text, _Loader)
    except RecipeError as error:
        raise RecipeError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}," if mark else ""
        raise RecipeError(f"{where}{line} is not YAML: {getattr(error, 'problem', None) or error}.") from None


def parse(data: Mapping[str, Any], where: str) -> Recipe:
    """Check a recipe's keys and build nothing but its steps.

    Raises: RecipeError naming the key; BudgetError, PlanError or TrainError for a bound or option that cannot be.
    """
    known = [f.name for f in fields(Recipe)]
    for key in data:
        if key not in known:
            raise RecipeError(f"{where} has an unknown key {key!r}.{did_you_mean(str(key), known)}")
    for key in ("model", "data", "steps"):
        if not data.get(key):
            raise RecipeError(f"{where} needs {key!r}.")
    given = {key: value for key, value in data.items() if value is not None}
    if given.get("penjing", VERSION) != VERSION:
        raise RecipeError(f"{where} is for recipe version {given['penjing']}; this is version {VERSION}.")
    if not isinstance(given["steps"], list):
        raise RecipeError(f"{where}: steps must be a list, such as [prune, train].")
    target = given.get("target", {})
    if not isinstance(target, Mapping) or any(key not in ("threads", "batch") for key in target):
        raise RecipeError(f"{where}: target takes threads and batch; got {target!r}.")
    values = checked(where, Recipe, given)
    for key, least in {("seed", 0), *((key, 1) for key in target)}:
        number = given.get(key, 0) if key == "seed" else target[key]
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise RecipeError(f"{where}: {key} must be a whole number, {least} or more; got {number!r}.")
    asked(values.get("budget"))
    return Recipe(**values | {"steps": tuple(ordered(given["steps"]))})


def _set(data: Any, key: str, value: Any) -> None:
    """Set ``a.0.b`` inside nested mappings and lists; a step written as a bare name becomes a mapping.

    Raises: RecipeError naming the part of the key that leads nowhere.
    """
    *path, last = key.split(".")
    for i, part in enumerate([*path, last]):
        there = ".".join(key.split(".")[: i + 1])
        if not part:
            raise RecipeError(f"--set {key!r} has an empty part; write it like steps.1.train.epochs=3.")
        if isinstance(data, list):
            if not part.isdigit() or int(part) >= len(data):
                raise RecipeError(f"--set {key}: there is nothing at {there}; its {len(data)} items count from 0.")
            index: Any = int(part)
            if isinstance(data[index], str) and i < len(path):
                data[index] = {data[index]: {}}
        elif isinstance(data, dict):
            index = part
            if data.get(part) is None:
                data[part] = {}
        else:
            raise RecipeError(f"--set {key}: there is nothing at {there}, since what holds it is a value, not keys.")
        if i == len(path):
            data[index] = value
        data = data[index]
