"""A target as people read it: what it is, each number with its source, and what to look at twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from penjing.targets.accelerator import Accelerator
from penjing.targets.read import ACCELERATOR, GROUPS, RUNTIME
from penjing.targets.runtime import Runtime
from penjing.targets.units import show

USUAL: Mapping[str, tuple[float, float]] = {
    "clock": (1e6, 5e9),
    "sram": (1024, 2**31),
    "sram_bandwidth": (1e6, 1e15),
    "dram_bandwidth": (1e6, 1e13),
    "flash": (1024, 2**36),
    "launch": (0, 10),
    "power": (0, 1e6),
    "sram_energy": (0, 100),
    "dram_energy": (1, 1000),
    "mac_energy": (0, 100),
}
"""Where hardware of this century lies, in the base units: outside, a unit was probably mistaken."""


def told(target: Accelerator | Runtime) -> dict[str, Any]:
    """Return a target as plain data; numbers are in base units."""
    numbers = [
        {"key": one.key, "value": one.value, "shown": show(one.quantity, one.value), "means": _means(one.key)}
        | {"mark": one.mark, "source": one.source}
        for one in target.numbers
    ]
    return {
        "name": target.name,
        "about": target.about,
        "settings": _settings(target),
        "numbers": numbers,
        "tells": dict(target.tells),
        "limits": dict(target.limits) if isinstance(target, Accelerator) else {},
        "notes": list(notes(target)),
    }


def described(target: Accelerator | Runtime) -> str:
    """Return a target as text: settings, then a line a number."""
    facts = told(target)
    rows = [(one["key"], one["shown"], one["mark"], one["source"] or one["means"]) for one in facts["numbers"]]
    rows = [(key, str(value), "", "") for key, value in facts["settings"].items()] + rows
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [
        "  ".join([*(part.ljust(width) for part, width in zip(row, widths, strict=False)), row[3]]) for row in rows
    ]
    head = f"{facts['name']}: {facts['about']}" if facts["about"] else facts["name"]
    tells = ", ".join(f"{cost} ({unit})" for cost, unit in facts["tells"].items())
    said = [head, "", *(line.rstrip() for line in lines), "", f"It tells {tells}."]
    said += [f"It has no more than {show('size', size)} of {cost}." for cost, size in facts["limits"].items()]
    return "\n".join(said)


def notes(target: Accelerator | Runtime) -> Iterator[str]:
    """Yield, a sentence each, which numbers nobody confirmed, which the file does not say, and which are unusual."""
    for mark, says in (("assumed", "Nobody confirmed"), ("default", "The file does not say")):
        keys = [one.key for one in target.numbers if one.mark == mark]
        if keys:
            yield f"{says}: {', '.join(keys)}."
    for one in target.numbers:
        low, high = USUAL.get(one.key.partition(".")[0], (0.0, float("inf")))
        if not low <= one.value <= high:
            usual = f"{show(one.quantity, low)} to {show(one.quantity, high)} is usual"
            yield f"{one.key} = {show(one.quantity, one.value)}: {usual}; is the unit right?"
    if isinstance(target, Accelerator):
        yield from _peaks(target)


def _peaks(target: Accelerator) -> Iterator[str]:
    """Yield what follows from the numbers, so that it can be held against a data sheet."""
    share = target.efficiency * target.speed.get(target.precision, 1.0)
    peak = target.rows * target.columns * target.clock_hz * share
    watts = (peak * target.mac_pj[target.precision] * 1e-12) + target.static_mw * 1e-3
    yield f"Its peak is {peak / 1e9:.4g} GMAC/s in {target.precision}, which takes {watts:.3g} W without memory."
    if target.dram_bandwidth is not None:
        yield f"A layer with fewer than {peak / target.dram_bandwidth:.3g} MACs a byte of DRAM waits for DRAM."


def _settings(target: Accelerator | Runtime) -> dict[str, Any]:
    if isinstance(target, Runtime):
        return {"runtime": target.runtime, "precision": target.precision, "measured": bool(target.table)}
    return {
        "dataflow": target.dataflow,
        "precision": ", ".join([target.precision, *(one for one in target.mac_pj if one != target.precision)]),
        "zeros": target.zeros,
        "depthwise": target.depthwise,
        "overlap_load": target.overlap_load,
        "resident": target.resident,
    }


def _means(key: str) -> str:
    """Return what a number is."""
    name = key.partition(".")[0]
    return {**RUNTIME, **GROUPS, **ACCELERATOR}[name].help
