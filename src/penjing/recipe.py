"""Recipes: a run as YAML, checked key by key before anything starts.

Steps and budgets are imported where they are read, so that the shell knows a recipe's keys without torch.
"""

from __future__ import annotations

import json
import os
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from penjing.core import yaml
from penjing.core.errors import RecipeError, did_you_mean
from penjing.core.files import write_whole
from penjing.core.registry import build, checked, entries

VERSION = 1

EPOCHS, LR, CRITERION, ALLOCATOR = 10, 0.005, "jacobian", "greedy"
"""What ``compress`` does where nothing else is asked."""


@dataclass(frozen=True)
class Key:
    """What is known of a recipe's key beside its type; the shell makes a flag of every key that has this.

    ``least`` bounds a whole number; ``beside`` says that the value may be a path, which is looked for in the recipe's
    folder; ``flag`` is what the shell calls it where that is not the key itself.
    """

    help: str
    least: int | None = None
    beside: bool = False
    flag: str = ""


@dataclass(frozen=True)
class Target:
    """What the network is made for, and how it runs there; a recipe may write the name alone."""

    name: Annotated[
        str,
        Key("What the network is to run on: see penjing target list, or a YAML file.", beside=True, flag="target"),
    ] = "onnxruntime"
    precision: Annotated[str | None, Key("Numbers the target computes in, such as int8; by default its own.")] = None
    frame_rate: Annotated[float | None, Key("Frames a second, for the average power on the target.")] = None
    threads: Annotated[int | None, Key("Threads of the runtime when latency is measured.", least=1)] = None
    batch: Annotated[int | None, Key("Batch size when latency is measured.", least=1)] = None


@dataclass(frozen=True)
class Recipe:
    """One run: which model, which data, what budget, which steps.

    Relative paths in a file are taken from its folder where they lie there.
    """

    model: Annotated[
        str,
        Key(
            "package.module:builder, or a network of the zoo such as resnet56; arguments in brackets, such as "
            "'resnet56(num_classes=100)'."
        ),
    ]
    data: Annotated[
        str,
        Key(
            "Folder of pictures, folder with train.npz and test.npz, 'digits' (or 'digits:3'), "
            "or package.module:function.",
            beside=True,
        ),
    ]
    budget: Annotated[Mapping[str, Any] | str, Key("Such as latency=0.6x,params=300k,error=+0.5.")] = field(
        default_factory=dict
    )
    steps: tuple[Any, ...] = ()
    weights: Annotated[Path | None, Key("A .safetensors file or a .pt state dict.", beside=True)] = None
    teacher: Annotated[
        str | None, Key("A network that teaches in the original's place, named as model is; of any architecture.")
    ] = None
    teacher_weights: Annotated[Path | None, Key("The teacher's weights: .safetensors or .pt.", beside=True)] = None
    seed: Annotated[int, Key("One seed, one result.", least=0)] = 0
    target: Target = field(default_factory=Target)
    val: Annotated[int | float, Key("Share (0.1) or count (500) of training pictures for validation.")] = 0.1
    mean: Annotated[tuple[float, ...] | None, Key("One number a channel, such as 0.485,0.456,0.406.")] = None
    std: Annotated[tuple[float, ...] | None, Key("One number a channel, such as 0.229,0.224,0.225.")] = None
    side: Annotated[
        int | None, Key("Side that pictures of a folder are brought to; by default their own, 224 at most.", least=1)
    ] = None
    penjing: int = VERSION


class Settable(NamedTuple):
    """A key that a flag may set: its path, with dots where it is nested, its type, its ``Key`` and its default."""

    path: str
    type: Any
    key: Key
    default: Any

    @property
    def flag(self) -> str:
        """What the shell calls it."""
        return self.key.flag or self.path.rpartition(".")[2]


def keys(of: type = Recipe, prefix: str = "") -> Iterator[Settable]:
    """Yield every key that a flag may set.

    >>> [one.path for one in keys(Target, "target.")]
    ['target.name', 'target.precision', 'target.frame_rate', 'target.threads', 'target.batch']
    """
    for name, hint in typing.get_type_hints(of, include_extras=True).items():
        if is_dataclass(hint):
            yield from keys(typing.cast(type, hint), f"{prefix}{name}.")
        elif typing.get_origin(hint) is Annotated:
            kind, key = typing.get_args(hint)
            yield Settable(f"{prefix}{name}", kind, key, getattr(of, name, None))


def usual_steps(
    epochs: int = EPOCHS, lr: float = LR, criterion: Any = CRITERION, allocator: Any = ALLOCATOR, method: Any = None
) -> list[Any]:
    """Return the steps of ``compress``; ``epochs`` of zero leave the cut at closed-form recovery.

    A ``method`` says itself what is cut and how it is trained; one that is a single step, such as ``rbp``, says what is
    cut, and is trained for ``epochs`` afterwards.

    Raises: RecipeError for one beside another choice.
    """
    training = [{"train": {"epochs": epochs, "lr": lr}}] if epochs else []
    end = ["export", "check"]
    if method is None:
        cut = {"prune": {"criterion": criterion, "allocator": allocator}}
        return [cut, "reconstruct", "recalibrate", *training, *end]
    one = _is_step(method)
    told: dict[str, tuple[Any, Any]] = {"criterion": (criterion, CRITERION), "allocator": (allocator, ALLOCATOR)}
    told |= {} if one else {"epochs": (epochs, EPOCHS), "lr": (lr, LR)}
    for name, (asked, default) in told.items():
        if asked != default:
            raise RecipeError(
                f"A method says itself what {name} is; leave {name} out, or set it where the method has such an "
                f"option: {{METHOD: {{{name}: {asked}}}}}."
            )
    if one:
        return [method, *training, *end]
    build("method", method)
    return [method, *end]


SCRATCH_EPOCHS, SCRATCH_LR = 60, 0.05
"""How a network with new weights is trained where nothing else is asked."""


def from_scratch(
    model: str, budget: Mapping[str, float], epochs: int = SCRATCH_EPOCHS, lr: float = SCRATCH_LR, taught: bool = False
) -> dict[str, Any]:
    """Return a recipe's data that trains a network from new weights, exports it, and holds it against a budget.

    Without a teacher pictures and their classes are all that it learns from, for its own first weights know nothing.
    """
    terms: dict[str, Any] = {} if taught else {"terms": []}
    training = {"train": {"epochs": epochs, "lr": lr, **terms}}
    return {"penjing": VERSION, "model": model, "budget": dict(budget), "steps": [training, "export", "check"]}


def write(data: Mapping[str, Any], path: Path) -> Path:
    """Check a recipe's data and write it into a file; files and folders that are there, beside it.

    Raises: RecipeError naming the key that is wrong; PenjingError for a file that cannot be written.
    """
    told = json.loads(json.dumps(data, default=os.fspath))
    parse(told, str(path))
    for *above, name in (one.path.split(".") for one in keys() if one.key.beside):
        holder = told.get(above[0], {}) if above else told
        if isinstance(given := holder.get(name), str) and Path(given).exists():
            holder[name] = os.path.relpath(given, path.parent)
    return write_whole(path, yaml.written(told).encode())


def _is_step(method: Any) -> bool:
    """Tell whether what is asked for as a method is a single step."""
    name = next(iter(method), "") if isinstance(method, Mapping) else method
    return isinstance(name, str) and name in entries("step") and name not in entries("method")


class _Loader(yaml.Loader):
    """Leaves what a budget says as it is written."""

    verbatim = frozenset({"budget"})


def read(path: Path, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe file; ``changes`` sets keys as ``changed`` does, and relative paths in them stay as they are.

    Raises: RecipeError naming the file and key that is wrong; BudgetError, PlanError or TrainError for a bound or an
    option that cannot be.
    """
    data = yaml.read(path, "a recipe", _Loader)
    if isinstance(data.get("target"), str):
        data["target"] = {"name": data["target"]}
    for *above, name in (one.path.split(".") for one in keys() if one.key.beside):
        holder = data.get(above[0]) if above else data
        if isinstance(holder, dict) and isinstance(holder.get(name), str):
            beside = path.parent / holder[name]
            holder[name] = str(beside) if beside.exists() else holder[name]
    return parse(changed(data, changes or {}), str(path))


def parse(data: Mapping[str, Any], where: str) -> Recipe:
    """Check a recipe's keys and build nothing but its steps.

    Raises: RecipeError naming the key; BudgetError, PlanError or TrainError for a bound or option that cannot be.
    """
    from penjing import targets
    from penjing.steps.order import ordered
    from penjing.steps.price import asked

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
    if given.get("teacher_weights") and not given.get("teacher"):
        raise RecipeError(f"{where}: teacher_weights fill a teacher; name the network with teacher.")
    if isinstance(given.get("target"), str):
        given["target"] = {"name": given["target"]}
    values = _checked(where, Recipe, given)
    target = values.get("target", Target())
    asked(values.get("budget"), targets.find(target.name).at(precision=target.precision, frame_rate=target.frame_rate))
    return Recipe(**values | {"steps": tuple(ordered(given["steps"]))})


def _checked(where: str, of: type, given: Any) -> dict[str, Any]:
    """Return the values of a recipe, or of the keys below one of its keys, each checked against its type.

    Raises: RecipeError naming the key.
    """
    if not isinstance(given, Mapping):
        raise RecipeError(f"{where} must hold key: value pairs; got {given!r}.")
    hints = typing.get_type_hints(of)
    nested = {name: hints[name] for name in given if is_dataclass(hints.get(name))}
    below = {name: kind(**_checked(f"{where}: {name}", kind, given[name])) for name, kind in nested.items()}
    values = checked(where, of, {**given, **below})
    for name, _, key, _ in keys(of):
        if key.least is None or name not in given:
            continue
        number = given[name]
        if isinstance(number, bool) or not isinstance(number, int) or number < key.least:
            raise RecipeError(f"{where}: {name} must be a whole number, {key.least} or more; got {number!r}.")
    return values


# --------------------------------------------------------------------------------------------------- changing keys


def changes(items: Sequence[str]) -> dict[str, Any]:
    """Read what ``--set`` is given: ``key=value``, with the value in YAML.

    Raises: RecipeError naming the item.

    >>> changes(["train.terms=[soft_targets]", "budget.error=+1"])
    {'train.terms': ['soft_targets'], 'budget.error': '+1'}
    """
    found: dict[str, Any] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals:
            raise RecipeError(f"--set {item!r} must be key=value.")
        if key in found:
            raise RecipeError(f"--set {key} is given twice.")
        *path, last = key.split(".")
        if path[-1:] == ["budget"]:
            found[key] = value
        elif last == "budget":  # under its key, where a + stays a +
            found[key] = yaml.parse(f"budget: {value}", f"--set {key}", "a value", _Loader)["budget"]
        else:
            found[key] = yaml.parse(value, f"--set {key}", "a value", _Loader)
    return found


def changed(data: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Set keys of a recipe's data in place and return it.

    A key is a path: ``target.threads``, ``steps.1.train.epochs`` (steps count from 0) or, where there is one step of
    that name, ``train.epochs``.

    Raises: RecipeError naming the part of a key that leads nowhere.
    """
    for key, value in changes.items():
        _set(data, key, _full(data, key), value)
    return data


def _full(data: Mapping[str, Any], key: str) -> str:
    """Return the path of a key that may begin with a step's name.

    Raises: RecipeError for what is neither a key nor one step's name.
    """
    if "" in key.split("."):
        raise RecipeError(f"--set {key!r} has an empty part; write it like train.epochs=3.")
    first = key.partition(".")[0]
    known = [f.name for f in fields(Recipe)]
    if first in known:
        return key
    steps = data.get("steps")
    names = [next(iter(s), "") if isinstance(s, dict) else s for s in (steps if isinstance(steps, list) else ())]
    places = [f"steps.{i}.{key}" for i, name in enumerate(names) if name == first]
    if not places:
        known += {name for name in names if isinstance(name, str)}
        raise RecipeError(f"--set {key}: there is no key and no step {first!r}.{did_you_mean(first, known)}")
    if len(places) > 1:
        raise RecipeError(f"--set {key}: there are {len(places)} steps {first!r}; write {' or '.join(places)}.")
    return places[0]


def _set(data: Any, asked: str, key: str, value: Any) -> None:
    """Set ``a.0.b`` inside nested mappings and lists; a step written as a bare name becomes a mapping.

    Raises: RecipeError naming the part of the key that leads nowhere; ``asked`` is the key as it was written.
    """
    *path, last = key.split(".")
    for i, part in enumerate([*path, last]):
        there = ".".join(key.split(".")[: i + 1])
        if isinstance(data, list):
            if not part.isdecimal() or int(part) >= len(data):
                raise RecipeError(f"--set {asked}: there is nothing at {there}; its {len(data)} items count from 0.")
            index: Any = int(part)
            if isinstance(data[index], str) and i < len(path):
                data[index] = {data[index]: {}}
        elif isinstance(data, dict):
            index = part
            if data.get(part) is None:
                data[part] = {}
        else:
            raise RecipeError(f"--set {asked}: there is nothing at {there}, since what holds it is a value, not keys.")
        if i == len(path):
            data[index] = value
        data = data[index]
