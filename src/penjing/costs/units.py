"""Budgets as people write them, ``latency=0.6x, params=300k``, and values as people read them.

A bound is absolute (``2.5``, ``300us``, ``1.2M``), relative to the original (``0.6x``, ``60%``) or, for an error, a
difference to it in points (``+0.5``). Of a cost in % a percentage is absolute: ``8%`` error is 8 % error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penjing.core.errors import BudgetError, did_you_mean
from penjing.core.registry import entries
from penjing.core.search import Bound

COUNTS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
TIMES = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
BYTES = {
    "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30,
}  # fmt: skip

ENERGIES = {"nJ": 1e-6, "uJ": 1e-3, "µJ": 1e-3, "mJ": 1.0, "J": 1e3}
POWERS = {"uW": 1e-3, "µW": 1e-3, "mW": 1.0, "W": 1e3}

_SCALES: dict[str, Mapping[str, float]] = {
    "parameters": {**COUNTS, "K": 1e3},
    "weights": {**COUNTS, "K": 1e3},
    "MACs": {**COUNTS, "K": 1e3},
    "ms": TIMES,
    "mJ": ENERGIES,
    "mW": POWERS,
    "bytes": {**COUNTS, **BYTES, "K": 1e3, "KB": 1e3, "bytes": 1.0},
    "%": {"%": 1.0},
}
"""What may follow the number of an absolute bound, by the cost's unit; other units take their own name alone."""

_LADDERS: dict[str, Mapping[str, float]] = {
    "parameters": COUNTS,
    "weights": COUNTS,
    "MACs": COUNTS,
    "ms": {name: TIMES[name] for name in ("ns", "us", "ms", "s")},
    "mJ": {name: ENERGIES[name] for name in ("nJ", "uJ", "mJ", "J")},
    "mW": {name: POWERS[name] for name in ("uW", "mW", "W")},
    "bytes": {name: BYTES[name] for name in ("B", "kB", "MB", "GB")},
}
"""The names a value may be shown under, by unit, smallest first."""

_MEANT = {
    "flops": "macs", "mac": "macs", "parameter": "params", "parameters": "params", "weights": "nonzero",
    "sparsity": "nonzero", "time": "latency", "speed": "latency", "accuracy": "error", "ram": "memory", "file": "size",
    "watts": "power", "joules": "energy", "rom": "flash", "dram": "dram_bytes",
    "bandwidth": "dram_bytes", "peak": "peak_power",
}  # fmt: skip
"""What people call a cost elsewhere."""

_EXAMPLES = {
    "ms": "2.5ms", "mJ": "0.4mJ", "mW": "250mW", "bytes": "1MB", "%": "8%", "parameters": "300k", "weights": "300k",
    "MACs": "40M",
}  # fmt: skip

LONGEST = 400
"""Characters of a bound; the pattern takes the square of their number in time."""

_NUMBER = re.compile(r"\s*([+-]?)\s*(\d+(?:_\d+)*(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)\s*(\S*)\s*")


@dataclass(frozen=True)
class Asked:
    """A bound as it was asked for: ``kind`` is ``"absolute"``, ``"relative"`` or ``"difference"``.

    ``value`` is in the cost's unit, a factor, or points; ``text`` is what the user wrote.
    """

    cost: str
    unit: str
    kind: str
    value: float
    text: str


def parse_bound(cost: str, unit: str, given: str | float) -> Asked:
    """Read one bound on a cost that counts in ``unit``.

    Raises: BudgetError naming cost and value, for a malformed one, another unit's, or one that bounds nothing.

    >>> parse_bound("latency", "ms", "300us").value
    0.3
    >>> parse_bound("params", "parameters", "60%")
    Asked(cost='params', unit='parameters', kind='relative', value=0.6, text='60%')
    """
    wrong = f"{cost}={given}"
    text = str(given)
    match = None if isinstance(given, bool) or len(text) > LONGEST else _NUMBER.fullmatch(text)
    if match is None:
        raise BudgetError(f"{wrong} is not a bound; write {_example(unit)} or 0.6x.")
    sign, digits, suffix = match.groups()
    number = float(digits.replace("_", ""))
    if sign == "-":
        raise BudgetError(f"{wrong} is negative; a bound on {cost} is a positive number of {unit}.")
    if not math.isfinite(number):
        raise BudgetError(f"{wrong} is too large a number.")
    if sign == "+":
        return _difference(cost, unit, number, suffix, str(given))
    if number == 0:
        hint = f"no model has a {cost} of 0 {unit}"
        if unit == "%":
            hint = "no network is never wrong; write +0 for no more than the original"
        raise BudgetError(f"{wrong} cannot be met: {hint}.")
    if suffix in ("x", "X", "×") or (suffix == "%" and unit != "%"):
        return _relative(cost, unit, number / 100 if suffix == "%" else number, str(given))
    scales = {"": 1.0, unit: 1.0} | dict(_SCALES.get(unit, {}))
    if suffix not in scales:
        raise BudgetError(f"{wrong}: {cost} is counted in {unit}, not in {suffix!r}; write {_example(unit)} or 0.6x.")
    value = number * scales[suffix]
    if unit in ("parameters", "weights", "MACs", "bytes") and value < 1:
        raise BudgetError(f"{wrong} is below 1 {unit}; did you mean {number:g}x?")
    if unit == "%" and value > 100:
        raise BudgetError(f"{wrong} bounds nothing: an {cost} is at most 100 %.")
    return Asked(cost, unit, "absolute", value, str(given))


def parse_budget(given: str | Mapping[str, Any]) -> dict[str, Asked]:
    """Read a budget: ``"latency=0.6x,params=300k"`` or the same as a mapping.

    Raises: BudgetError naming the key that is unknown or given twice, or the value that is wrong.
    """
    pairs = list(given.items()) if isinstance(given, Mapping) else _pairs(given)
    if not pairs:
        raise BudgetError("The budget is empty; write for example latency=0.6x or params=300k.")
    known, budget = entries("cost"), dict[str, Asked]()
    for name, value in pairs:
        if name not in known:
            meant = _MEANT.get(str(name).lower(), str(name).lower())
            raise BudgetError(f"There is no cost {name!r}.{did_you_mean(meant, known)}")
        if name in budget:
            raise BudgetError(f"{name} is bounded twice: {budget[name].text} and {value}.")
        budget[name] = parse_bound(name, getattr(known[name], "unit", ""), value)
    return budget


def resolve(asked: Asked, original: float) -> Bound:
    """Turn what was asked into a bound, given the original's cost.

    Raises: BudgetError when the bound is relative and the original's cost is not a number, or 0.
    """
    if asked.kind == "absolute":
        return Bound(asked.cost, asked.value, asked.text)
    if not math.isfinite(original) or (asked.kind == "relative" and original <= 0):
        raise BudgetError(f"{asked.cost}={asked.text} is relative, and the original's {asked.cost} is {original}.")
    limit = original * asked.value if asked.kind == "relative" else original + asked.value
    return Bound(asked.cost, limit, asked.text)


def show(value: float, unit: str) -> str:
    """Write a value with three digits and the prefix that suits it; ``parse_bound`` reads it back.

    >>> show(1_240_000, "parameters"), show(2.5, "ms"), show(0.3, "ms"), show(3_400_000, "bytes"), show(7.5, "%")
    ('1.24 M', '2.5 ms', '300 us', '3.4 MB', '7.50 %')
    """
    if not math.isfinite(value):
        return str(value)
    if unit == "%":
        return f"{value:.2f} %"
    steps = _LADDERS.get(unit, {unit: 1.0})
    # Rounding first: 999,600 is 1 M, not 1000 k.
    rounded = float(f"{value:.3g}")
    fitting = [name for name, scale in steps.items() if abs(rounded) >= scale] or list(steps)[:1]
    number = rounded / steps[fitting[-1]]
    return f"{number:.3g} {fitting[-1]}".rstrip() if abs(number) < 1000 else f"{number:.0f} {fitting[-1]}".rstrip()


def _relative(cost: str, unit: str, factor: float, text: str) -> Asked:
    if factor >= 1 and unit != "%":
        raise BudgetError(f"{cost}={text} asks for nothing: the original meets it; write less than 1x.")
    return Asked(cost, unit, "relative", factor, text)


def _difference(cost: str, unit: str, number: float, suffix: str, text: str) -> Asked:
    if unit != "%":
        raise BudgetError(
            f"{cost}={text}: only an error may be bounded by a difference; write {_example(unit)} or 0.6x."
        )
    if suffix not in ("", "%"):
        raise BudgetError(f"{cost}={text}: a difference is in points of %, not in {suffix!r}; write +0.5.")
    return Asked(cost, unit, "difference", number, text)


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise BudgetError(f"{part!r} is not name=bound; write for example latency=0.6x,params=300k.")
        pairs.append((name.strip(), value.strip()))
    return pairs


def _example(unit: str) -> str:
    return _EXAMPLES.get(unit, f"2.5 {unit}")
