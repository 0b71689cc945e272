"""One registry for everything that is chosen by name: criteria, allocators, costs, steps, runtimes and so on.

``@register("criterion")`` files an object under its own name (a trailing underscore, which avoids a Python
keyword or builtin, is dropped). An entry is either a function, used as it is, or a frozen dataclass, whose
fields are its options. ``build`` turns what a recipe or a caller wrote into the object and checks the options
against the signature. Other packages join through the ``penjing`` entry-point group.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from penjing.core.errors import RecipeError, did_you_mean

T = TypeVar("T")

HOMES = {
    "criterion": "penjing.criteria",
    "allocator": "penjing.allocators",
    "cost": "penjing.costs",
    "rewrite": "penjing.rewrites",
    "factorization": "penjing.factors",
    "quantizer": "penjing.quantizers",
    "term": "penjing.terms",
    "step": "penjing.steps",
    "reference": "penjing.references",
    "runtime": "penjing.exporting.runtimes",
    "method": "penjing.methods",
}
"""Where the built-in entries of each kind live; a module, or a package whose modules are all imported on first use."""

ALSO = {"rewrite": ("quantizer",)}
"""Kinds of which every entry has one of its name, and with its words, of another kind too."""

PLURALS = {kind: f"{kind}s" for kind in HOMES} | {"criterion": "criteria"}
"""What the entries of a kind are called together."""

_entries: dict[str, dict[str, Any]] = {kind: {} for kind in HOMES}


def register(kind: str) -> Callable[[T], T]:
    """File the decorated function or class under its own name."""

    def file(entry: T) -> T:
        name = typing.cast(Any, entry).__name__.rstrip("_")
        known = _entries[kind]
        if known.get(name, entry) is not entry:
            raise RecipeError(f"{kind} {name!r} is registered twice: {known[name]!r} and {entry!r}.")
        known[name] = entry
        return entry

    return file


@cache
def _load(kind: str) -> None:
    home = importlib.import_module(HOMES[kind])
    for module in pkgutil.iter_modules(getattr(home, "__path__", None) or []):
        importlib.import_module(f"{home.__name__}.{module.name}")
    for point in importlib.metadata.entry_points(group="penjing"):
        point.load()


def entries(kind: str) -> dict[str, Any]:
    """Return every entry of one kind by name, sorted.

    Raises: RecipeError for a kind that does not exist.
    """
    if kind not in HOMES:
        raise RecipeError(f"There is no kind {kind!r}.{did_you_mean(kind, HOMES)}")
    _load(kind)
    return dict(sorted(_entries[kind].items()))


def find(kind: str, name: str) -> Any:
    """Return the entry filed under ``name``.

    Raises: RecipeError naming the closest known name.
    """
    if kind in HOMES:
        _load(kind)
        if name in _entries[kind]:
            return _entries[kind][name]
    raise RecipeError(f"There is no {kind} {name!r}.{did_you_mean(name, entries(kind))}")


def options(entry: Any) -> dict[str, inspect.Parameter]:
    """Return what a recipe may set on an entry; a plain function has no options."""
    return dict(inspect.signature(entry).parameters) if inspect.isclass(entry) else {}


def build(kind: str, spec: Any) -> Any:
    """Turn ``"l1"``, ``{"threshold": {"k": 3}}`` or a ready object into an object of this kind.

    Raises: RecipeError naming the entry and the option that is unknown, missing or of the wrong type.

    >>> build("criterion", "l1").__name__
    'l1'
    """
    if isinstance(spec, str):
        name, given = spec, dict[str, Any]()
    elif isinstance(spec, Mapping):
        if len(spec) != 1:
            raise RecipeError(f"A {kind} is one name with its options, such as {{l1: {{}}}}; got {dict(spec)!r}.")
        ((name, given),) = spec.items()
        given = {} if given is None else given
        if not isinstance(given, Mapping):
            raise RecipeError(f"The options of {kind} {name!r} must be key: value pairs; got {given!r}.")
    elif spec is None or isinstance(spec, bool | int | float | list | tuple | set):
        raise RecipeError(f"{spec!r} is no {kind}; write its name.")
    else:
        return spec
    entry = find(kind, str(name))
    if not inspect.isclass(entry):
        if given:
            raise RecipeError(f"{kind} {name!r} takes no options; got {', '.join(map(str, given))}.")
        return entry
    return entry(**checked(f"{kind} {name!r}", entry, given))


def checked(what: str, entry: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``given`` with each value validated against the entry's annotation; one value may stand for a tuple of it.

    Raises: RecipeError naming the option; ``what`` names the entry in the message.
    """
    from pydantic import ValidationError

    known = options(entry)
    hints = typing.get_type_hints(entry)
    result: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            raise RecipeError(f"{what} has no option {key!r}.{did_you_mean(str(key), known)}")
        try:
            result[key] = _validated(hints.get(key, Any), value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise RecipeError(f"{what}: {key} = {value!r} is not right: {reason}.") from None
    missing = [k for k, p in known.items() if p.default is inspect.Parameter.empty and k not in result]
    if missing:
        raise RecipeError(f"{what} needs {', '.join(missing)}.")
    return result


def _validated(hint: Any, value: Any) -> Any:
    """Return a value of a type, or, where that is a tuple of any length, the tuple of the one value.

    Raises: ValidationError about the value as it was given.

    >>> _validated(tuple[str, ...], "conv1"), _validated(tuple[int, ...] | None, [1, 2])
    (('conv1',), (1, 2))
    """
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter(hint)
    try:
        return adapter.validate_python(value)
    except ValidationError:
        kinds = [hint, *typing.get_args(hint)]
        several = any(typing.get_origin(kind) is tuple and Ellipsis in typing.get_args(kind) for kind in kinds)
        if not several or value is None or isinstance(value, list | tuple | set):
            raise
        try:
            return adapter.validate_python((value,))
        except ValidationError:
            pass
        raise


@dataclass(frozen=True)
class Option:
    """What a recipe may set on an entry; type and default are text, the default empty where there is none."""

    name: str
    type: str
    default: str


@dataclass(frozen=True)
class Entry:
    """An entry as people read it: its name, its whole docstring, those it inherits from among it, and its options."""

    name: str
    doc: str
    options: tuple[Option, ...]

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.doc.partition("\n")[0]


def describe(kind: str) -> list[Entry]:
    """Return every entry of one kind as people read it."""
    return [_described(name, entry) for name, entry in entries(kind).items()]


def _described(name: str, entry: Any) -> Entry:
    shown = [
        Option(
            p.name,
            p.annotation if isinstance(p.annotation, str) else inspect.formatannotation(p.annotation),
            "" if p.default is inspect.Parameter.empty else repr(p.default),
        )
        for p in options(entry).values()
        if not p.name.startswith("_")
    ]
    parts = [part for part in entry.__mro__ if is_dataclass(part)] if inspect.isclass(entry) else []
    return Entry(name, "\n\n".join(inspect.getdoc(part) or "" for part in parts or [entry]), tuple(shown))


def outline(kind: str) -> dict[str, str]:
    """Return the first docstring line of every built-in entry by name, read from the source: nothing is imported.

    A shell that completes a word cannot wait for torch. Entries of other packages are not among them.

    >>> "greedy" in outline("allocator")
    True
    """
    spec = importlib.util.find_spec(HOMES[kind])
    assert spec is not None and spec.origin is not None
    home = Path(spec.origin)
    found = {}
    for file in sorted(home.parent.glob("*.py")) if home.name == "__init__.py" else [home]:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and any(map(_files(kind), node.decorator_list)):
                found[node.name.rstrip("_")] = (ast.get_docstring(node) or "").partition("\n")[0]
    for other in ALSO.get(kind, ()):
        found |= outline(other)
    return dict(sorted(found.items()))


def _files(kind: str) -> Callable[[ast.expr], bool]:
    """Return whether a decorator is ``register(kind)``."""
    return lambda decorator: ast.unparse(decorator) == f"register({kind!r})"
