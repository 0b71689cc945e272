"""Targets as YAML: each number with its unit, its source, and whether anybody looked it up."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from penjing.core import yaml
from penjing.core.errors import RecipeError, did_you_mean
from penjing.targets import energy, units
from penjing.targets.accelerator import DEPTHWISE, ZEROS, Accelerator
from penjing.targets.numbers import Number
from penjing.targets.runtime import PRECISIONS, Runtime
from penjing.targets.systolic import DATAFLOWS, SUM_BYTES, Registers
from penjing.targets.widths import VALUE_BYTES


class Key(NamedTuple):
    """What a number of a target measures, and what it may be.

    ``default`` stands in where the file does not say it; None: the file must, or, where it is ``optional``, nothing
    stands in. ``chosen`` says that it is no fact about the hardware, so that it needs no source.
    """

    quantity: str
    help: str
    default: float | None = None
    optional: bool = False
    zero: bool = False
    whole: bool = False
    most: float = math.inf
    chosen: bool = False


ACCELERATOR = {
    "rows": Key("number", "rows of multipliers", whole=True),
    "columns": Key("number", "columns of multipliers", whole=True),
    "clock": Key("frequency", "clock of the multipliers"),
    "sram": Key("size", "on-chip memory for activations and weights"),
    "sram_bandwidth": Key("bandwidth", "what it moves to the array; without: as much as wanted", optional=True),
    "dram_bandwidth": Key("bandwidth", "what moves to DRAM; without: there is no DRAM", optional=True),
    "flash": Key("size", "storage for weights and code", optional=True),
    "layer_bytes": Key("size", "storage that a layer takes beside its weights", 0.0, zero=True),
    "code": Key("size", "storage that the runtime's code takes", 0.0, zero=True),
    "launch": Key("time", "time to start a layer or pass", 0.0, zero=True),
    "efficiency": Key("share", "share of the peak that is reached", 1.0, most=1.0),
    "vector": Key("number", "operations a cycle of pooling and additions", optional=True),
    "power": Key("power", "power drawn whatever it does", 0.0, zero=True),
    "sram_energy": Key("energy per byte", "energy of a byte from or to on-chip memory", optional=True, zero=True),
    "dram_energy": Key("energy per byte", "energy of a byte from or to DRAM", optional=True, zero=True),
    "batch": Key("number", "samples that run at once", 1.0, whole=True, chosen=True),
    "frame_rate": Key("rate", "samples a second, for the average power", optional=True, chosen=True),
}  # fmt: skip
"""The numbers of ``kind: accelerator``."""

GROUPS = {
    "mac_energy": Key("energy", "energy of a multiplication and addition, by precision", zero=True),
    "speed": Key("share", "how fast a precision is, 1 being a multiplication a cycle and multiplier", most=16.0),
    "registers": Key("number", "words that an element of a row stationary array holds", whole=True),
}
"""Numbers by name, such as ``mac_energy: {int8: 0.3 pJ}``."""

MEMBERS: Mapping[str, Iterable[str]] = {
    "mac_energy": VALUE_BYTES, "speed": VALUE_BYTES, "registers": Registers._fields
}  # fmt: skip

WORDS: Mapping[str, tuple[str, ...]] = {"dataflow": DATAFLOWS, "precision": tuple(VALUE_BYTES), "zeros": ZEROS,
                                        "depthwise": DEPTHWISE}  # fmt: skip
"""What is chosen from a list."""

RUNTIME = {
    "threads": Key("number", "threads of the runtime", 1.0, whole=True, chosen=True),
    "batch": ACCELERATOR["batch"],
    "step": Key("number", "multiple that channel counts are worth having in", optional=True, whole=True, chosen=True),
}
"""The numbers of ``kind: runtime``."""

MEASURED = ("version", "cpu", "date", "fit", "layers", "error", "runs")
"""What a runtime's file may hold of measurements; it is kept as it is."""

KINDS = ("accelerator", "runtime")
TEXTS = ("name", "about", "kind")


def read(path: Path) -> Accelerator | Runtime:
    """Read a target's file.

    Raises: RecipeError naming the file and the key that is wrong.
    """
    file = _File(str(path), yaml.read(path, "a target"))
    kind = file.word("kind", KINDS)
    name = file.text("name") or path.stem
    return _runtime(file, name) if kind == "runtime" else _accelerator(file, name)


def _accelerator(file: _File, name: str) -> Accelerator:
    file.known((*TEXTS, *ACCELERATOR, *GROUPS, *WORDS, "overlap_load", "resident"))
    numbers = {key: file.number(key, what) for key, what in ACCELERATOR.items()}
    groups = {key: file.group(key, what) for key, what in GROUPS.items()}
    dataflow, precision = file.word("dataflow", DATAFLOWS), file.word("precision", WORDS["precision"])
    if not groups["mac_energy"]:
        groups["mac_energy"] = {precision: file.stand_in("mac_energy." + precision, "energy", energy.MAC_PJ[precision])}
    if precision not in groups["mac_energy"]:
        raise file.error(f"precision is {precision}, and mac_energy has none for it; add it there.")
    if extra := set(groups["speed"]) - set(groups["mac_energy"]):
        raise file.error(f"speed has {', '.join(sorted(extra))}, and mac_energy has not; add it there.")
    registers = None
    if groups["registers"]:
        if len(groups["registers"]) < len(Registers._fields):
            raise file.error(f"registers needs {', '.join(Registers._fields)}.")
        registers = Registers(**{key: int(value) for key, value in groups["registers"].items()})
    if numbers["sram_energy"] is None:
        numbers["sram_energy"] = file.stand_in("sram_energy", "energy per byte", energy.sram_pj_a_byte(numbers["sram"]))
    if numbers["dram_bandwidth"] is not None and numbers["dram_energy"] is None:
        numbers["dram_energy"] = file.stand_in("dram_energy", "energy per byte", energy.DRAM_PJ_A_BYTE)
    if numbers["vector"] is None:
        numbers["vector"] = file.stand_in("vector", "number", numbers["columns"], "the columns")
    found = Accelerator(
        name=name,
        rows=int(numbers["rows"]),
        columns=int(numbers["columns"]),
        dataflow=dataflow,
        clock_hz=numbers["clock"],
        precision=precision,
        mac_pj=groups["mac_energy"],
        sram_bytes=numbers["sram"],
        sram_pj=numbers["sram_energy"],
        dram_pj=numbers["dram_energy"] or 0.0,
        sram_bandwidth=numbers["sram_bandwidth"],
        dram_bandwidth=numbers["dram_bandwidth"],
        launch_ms=numbers["launch"],
        static_mw=numbers["power"],
        efficiency=numbers["efficiency"],
        vector=numbers["vector"],
        overlap_load=file.switch("overlap_load"),
        resident=file.switch("resident"),
        zeros=file.word("zeros", ZEROS, "gated"),
        depthwise=file.word("depthwise", DEPTHWISE, "array"),
        speed=groups["speed"],
        registers=registers,
        flash_bytes=numbers["flash"],
        layer_bytes=numbers["layer_bytes"],
        code_bytes=numbers["code"],
        batch=int(numbers["batch"]),
        frame_rate=numbers["frame_rate"],
        about=file.text("about"),
        numbers=tuple(file.numbers),
    )
    _holds_a_tile(file, found)
    return found


def _holds_a_tile(file: _File, found: Accelerator) -> None:
    """Refuse a memory that does not hold what the array works on at one time."""
    rows, columns = found.rows, found.columns
    m, k, n = {
        "output_stationary": (rows, 1, columns),
        "weight_stationary": (1, rows, columns),
        "input_stationary": (columns, rows, 1),
        "row_stationary": (columns, rows, 1),
        "simd": (1, rows * columns, 1),
    }[found.dataflow]
    least = 2 * VALUE_BYTES[found.precision] * (m * k + k * n) + SUM_BYTES * m * n
    if found.sram_bytes < least:
        raise file.error(
            f"sram = {found.sram_bytes:,.0f} B holds no tile: {rows} x {columns} multipliers, {found.dataflow}, work "
            f"on {least:,} B at one time in {found.precision}; give more sram or a smaller array."
        )


def _runtime(file: _File, name: str) -> Runtime:
    file.known((*TEXTS, *RUNTIME, "runtime", "precision", *MEASURED))
    runtime = file.text("runtime")
    if not runtime:
        raise file.error("runtime is missing; write for example runtime: onnxruntime.")
    numbers = {key: file.number(key, what) for key, what in RUNTIME.items()}
    table = {key: file.data[key] for key in MEASURED if key in file.data}
    return Runtime(
        name=name,
        runtime=runtime,
        threads=int(numbers["threads"]),
        batch=int(numbers["batch"]),
        precision=file.word("precision", PRECISIONS, "fp32"),
        step=None if numbers["step"] is None else int(numbers["step"]),
        about=file.text("about"),
        table=table or None,
        digest=hashlib.sha256(repr(table).encode(errors="replace")).hexdigest()[:16] if table else "",
        file=file.where,
        numbers=tuple(file.numbers),
    )


@dataclass
class _File:
    """A target's file while it is read; ``numbers`` gathers where each is from."""

    where: str
    data: dict[Any, Any]
    numbers: list[Number] = field(default_factory=list)

    def error(self, says: str) -> RecipeError:
        return RecipeError(f"{self.where}: {says}")

    def known(self, keys: Iterable[str]) -> None:
        """Refuse a key that means nothing."""
        keys = tuple(keys)
        for key in self.data:
            if key not in keys:
                raise self.error(f"there is no key {key!r}.{did_you_mean(str(key), keys)}")

    def text(self, key: str) -> str:
        given = self.data.get(key, "")
        if not isinstance(given, str):
            raise self.error(f"{key} = {given!r} must be text.")
        return given

    def switch(self, key: str) -> bool:
        given = self.data.get(key, False)
        if not isinstance(given, bool):
            raise self.error(f"{key} = {given!r} must be true or false.")
        return given

    def word(self, key: str, choices: tuple[str, ...], default: str = "") -> str:
        """Return one of the choices."""
        given = self.data.get(key, default)
        if given in choices:
            return str(given)
        if not given:
            raise self.error(f"{key} is missing; it is one of {', '.join(choices)}.")
        raise self.error(f"{key} = {given!r} is none of {', '.join(choices)}.{_meant(str(given), choices)}")

    def number(self, key: str, what: Key) -> Any:
        """Return a number in its base unit, or what stands in for it."""
        given = self.data.get(key)
        if given is not None:
            return self._checked(key, what, given)
        if what.default is not None:
            return self._filed(key, what, what.default, "", "default")
        if what.optional:
            return None
        raise self.error(f"{key} is missing: {what.help}, such as {key}: {units.QUANTITIES[what.quantity].example}.")

    def group(self, key: str, what: Key) -> dict[str, float]:
        """Return numbers by name."""
        given = self.data.get(key, {})
        if not isinstance(given, Mapping):
            raise self.error(f"{key} must hold key: value pairs; got {given!r}.")
        members = tuple(MEMBERS[key])
        for name in given:
            if name not in members:
                raise self.error(f"there is no {key}.{name}.{did_you_mean(str(name), members)}")
        return {name: self._checked(f"{key}.{name}", what, value) for name, value in given.items()}

    def stand_in(self, key: str, quantity: str, value: float, source: str = energy.SOURCE) -> float:
        """File and return a number that the file does not say."""
        self.numbers.append(Number(key, quantity, value, source, "default"))
        return value

    def _filed(self, key: str, what: Key, value: float, source: str, mark: str) -> float:
        self.numbers.append(Number(key, what.quantity, value, source, "chosen" if what.chosen else mark))
        return value

    def _checked(self, key: str, what: Key, given: Any) -> float:
        given, source, confirmed = self._taken_apart(key, given)
        value = units.parse(self.where, key, what.quantity, given)
        if value < 0 or (value == 0 and not what.zero):
            raise self.error(f"{key} = {given} must be {'0 or more' if what.zero else 'more than 0'}.")
        if value > what.most:
            raise self.error(f"{key} = {given} must be {what.most:g} at most.")
        if what.whole and (value % 1 or value > 1e9):
            raise self.error(f"{key} = {given} must be a whole number, of a billion at most.")
        return self._filed(key, what, value, source, "confirmed" if confirmed else "assumed")

    def _taken_apart(self, key: str, given: Any) -> tuple[Any, str, bool]:
        """Return what ``{value: ..., source: ..., confirmed: ...}``, or a bare number, says."""
        if not isinstance(given, Mapping):
            return given, "", False
        parts = ("value", "source", "confirmed")
        for part in given:
            if part not in parts:
                raise self.error(f"{key} has no part {part!r}.{did_you_mean(str(part), parts)}")
        source, confirmed = given.get("source", ""), given.get("confirmed", False)
        if not isinstance(source, str) or not isinstance(confirmed, bool):
            raise self.error(f"{key}: source must be text, and confirmed true or false.")
        if confirmed and not source.strip():
            raise self.error(f"{key} is confirmed, and by no source; name it, or leave confirmed out.")
        return given.get("value"), source, confirmed


def _meant(word: str, choices: tuple[str, ...]) -> str:
    hint = did_you_mean(word, choices)
    return hint if "mean" in hint else ""
