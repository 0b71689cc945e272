"""Plain data from a file that people may have edited, taken apart with the name of whatever is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

LARGEST = 10**12
"""Above any count that a file may hold."""


def mapping(where: str, given: Any) -> Mapping[Any, Any]:
    """Return key: value pairs.

    Raises: ValueError naming ``where`` for anything else.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} = {shown(given)} must hold key: value pairs")
    return given


def entry(where: str, given: Any, key: str) -> Any:
    """Return what stands under a key.

    Raises: ValueError naming it where it is missing.
    """
    found = mapping(where, given)
    if key not in found:
        raise ValueError(f"{where}.{key} is missing")
    return found[key]


def number(where: str, given: Any, *, positive: bool = False) -> float:
    """Return a time.

    Units: ms.

    Raises: ValueError naming ``where`` for what is none, is not finite, or is negative.
    """
    fit = not isinstance(given, bool) and isinstance(given, int | float) and 0 <= given < LARGEST
    if not fit or (positive and not given):
        raise ValueError(f"{where} = {shown(given)} is no time in ms")
    return float(given)


def count(where: str, given: Any, least: int = 0) -> int:
    """Return a whole number.

    Raises: ValueError naming ``where`` for what is none, or is less than ``least``.
    """
    if isinstance(given, bool) or not isinstance(given, int) or not least <= given < LARGEST:
        raise ValueError(f"{where} = {shown(given)} must be a whole number, {least} or more")
    return given


def text(where: str, given: Any) -> str:
    """Return a text.

    Raises: ValueError naming ``where`` for anything else.
    """
    if not isinstance(given, str):
        raise ValueError(f"{where} = {shown(given)} must be text")
    return given


def printable(given: str) -> str:
    """Return a text that any terminal and any file takes."""
    return "".join(c if c.isprintable() else "?" for c in given)


def shown(given: Any) -> str:
    """Return a value so that it fits into a sentence."""
    if isinstance(given, float) and not math.isfinite(given):
        return str(given)
    said = repr(given)
    return said if len(said) <= 60 else f"{said[:57]}..."
