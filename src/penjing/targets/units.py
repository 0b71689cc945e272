"""Numbers of hardware as people write them, ``200 MHz`` or ``0.3 pJ``: a unit is never guessed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from penjing.core.errors import RecipeError

_K = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BYTES = {f"{k}B": one for k, one in _K.items()} | {"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
_DECIMAL = ("B/s", "kB/s", "MB/s", "GB/s", "TB/s")
_JOULES = {"fJ": 1e-3, "pJ": 1.0, "nJ": 1e3}


class Quantity(NamedTuple):
    """What a number measures: its name, an example, and what its units are worth in ``base``.

    ``shown`` are those that it is written in; without, all.
    """

    name: str
    example: str
    base: str
    units: Mapping[str, float]
    shown: tuple[str, ...] = ()


QUANTITIES = {
    one.name: one
    for one in (
        Quantity("frequency", "200 MHz", "Hz", {f"{k}Hz": one for k, one in _K.items()}),
        Quantity("size", "128 KiB", "B", _BYTES),
        Quantity("bandwidth", "4 GB/s", "B/s", {f"{k}/s": one for k, one in _BYTES.items()}, _DECIMAL),
        Quantity("energy", "0.3 pJ", "pJ", _JOULES, ("pJ",)),
        Quantity("energy per byte", "160 pJ/B", "pJ/B", {f"{k}/B": one for k, one in _JOULES.items()}, ("pJ/B",)),
        Quantity("power", "50 mW", "mW", {"uW": 1e-3, "mW": 1.0, "W": 1e3}, ("mW", "W")),
        Quantity("time", "5 us", "ms", {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3}, ("us", "ms")),
        Quantity("rate", "30 fps", "fps", {"fps": 1.0}),
        Quantity("number", "16", "", {"": 1.0}),
        Quantity("share", "0.6", "", {"": 1.0, "%": 0.01}),
    )
}
"""By name; the base is the unit that the numbers of a target have inside."""

LONGEST = 60
"""Characters of a number."""

_NUMBER = re.compile(r"\s*([+-]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*(\S*)\s*")
_BUS = re.compile(r"\s*(\d+)\s*bits?\s*[*x]\s*(\S.*)")


def parse(where: str, key: str, quantity: str, given: Any) -> float:
    """Return a number in the base unit of its quantity; a bandwidth may be a bus, ``64 bit * 60 MHz``.

    Raises: RecipeError naming the file, as ``where``, and the key, for a missing, unknown or another quantity's unit.

    >>> parse("chip.yaml", "clock", "frequency", "200 MHz"), parse("chip.yaml", "dram", "bandwidth", "64 bit * 60 MHz")
    (200000000.0, 480000000.0)
    """
    wanted = QUANTITIES[quantity]
    text = "" if isinstance(given, bool) or not isinstance(given, int | float | str) else str(given)
    if quantity == "bandwidth" and (bus := _BUS.fullmatch(text[:LONGEST])):
        return int(bus[1]) / 8 * parse(where, key, "frequency", bus[2])
    match = _NUMBER.fullmatch(text) if len(text) <= LONGEST else None
    if match is None:
        raise RecipeError(f"{where}: {key} = {given!r} is no number; write for example {wanted.example}.")
    value, unit = float(match[1].replace("_", "")), match[2]
    if unit not in wanted.units:
        raise RecipeError(f"{where}: {key} = {given!r} {_wrong(unit, wanted)}; write for example {wanted.example}.")
    value *= wanted.units[unit]
    if not math.isfinite(value):
        raise RecipeError(f"{where}: {key} = {given!r} is too large a number.")
    return value


def _wrong(unit: str, wanted: Quantity) -> str:
    known = ", ".join(filter(None, wanted.units))
    if not unit:
        return f"has no unit; {_a(wanted.name)} is in {known}"
    other = next((one.name for one in QUANTITIES.values() if unit in one.units), None)
    what = f"is {_a(other)}" if other and other not in ("number", "share") else f"has the unit {unit!r}"
    return f"{what}, where {_a(wanted.name)} {f'in {known} ' if known else 'without a unit '}is wanted"


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def show(quantity: str, value: float) -> str:
    """Write a number in the unit that suits it.

    >>> show("frequency", 2e8), show("size", 110592.0), show("energy per byte", 2.7)
    ('200 MHz', '108 KiB', '2.7 pJ/B')
    """
    wanted = QUANTITIES[quantity]
    if quantity == "share":
        return f"{value:.6g}"
    units = wanted.shown or tuple(wanted.units)
    fitting = [unit for unit in units if value >= wanted.units[unit]] or [units[0] if value else wanted.base]
    if quantity == "size":  # 108 KiB, and not 110.592 kB
        fitting = [unit for unit in fitting if (value / wanted.units[unit]) % 1 == 0] or fitting
    unit = max(fitting, key=lambda name: wanted.units[name])
    return f"{value / wanted.units[unit]:.6g} {unit}".strip()
