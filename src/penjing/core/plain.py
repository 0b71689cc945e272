"""Objects as plain data, and plain data as JSON text."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any


def told(thing: Any) -> Any:
    """Return a step or an option as JSON data that is the same in every process."""
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    if is_dataclass(thing) and not isinstance(thing, type):
        shown = {f.name: told(getattr(thing, f.name)) for f in fields(thing) if f.init and f.repr}
        return {type(thing).__name__.rstrip("_"): shown}
    if isinstance(thing, Mapping):
        return {str(key): told(value) for key, value in thing.items()}
    if isinstance(thing, set | frozenset):
        return sorted(map(told, thing), key=str)
    if isinstance(thing, list | tuple):
        return [told(one) for one in thing]
    if isinstance(thing, os.PathLike):
        return os.fspath(thing)
    return getattr(thing, "__qualname__", type(thing).__qualname__)


def written(thing: Any) -> str:
    """Return a step as its constructor is written, with the options that are not the default.

    >>> from penjing.training.options import Options
    >>> written(Options(epochs=3))
    'Options(epochs=3)'
    """
    name = type(thing).__name__.rstrip("_")
    if not is_dataclass(thing):
        return name
    shown = [f for f in fields(thing) if f.init and f.repr]
    given = [f"{f.name}={value!r}" for f in shown if (value := getattr(thing, f.name)) != _default(f)]
    return f"{name}({', '.join(given)})" if given else name


def _default(option: Field[Any]) -> Any:
    return option.default if option.default_factory is MISSING else option.default_factory()


def json_text(facts: Any, indent: int | None = None) -> str:
    """Return plain data as JSON; numbers that are not finite, which JSON does not have, become null.

    >>> json_text({"loss": float("nan"), "epoch": 1})
    '{"loss": null, "epoch": 1}'
    """
    return json.dumps(_finite(facts), indent=indent, default=lambda number: _finite(float(number)))


def _finite(facts: Any) -> Any:
    if isinstance(facts, Mapping):
        return {key: _finite(value) for key, value in facts.items()}
    if isinstance(facts, list | tuple):
        return [_finite(value) for value in facts]
    return None if isinstance(facts, float) and not math.isfinite(facts) else facts
