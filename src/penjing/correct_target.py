"""Close the loop: what finished runs measured of whole networks goes into the file of a measured target."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import yaml as pyyaml

from penjing.core import console, yaml
from penjing.core.errors import PlanError, RecipeError
from penjing.core.files import write_whole
from penjing.costs.checked import count, entry, mapping, number, printable, shown, text
from penjing.costs.measured import Known, RunSeen, known
from penjing.costs.notation import read_shape
from penjing.costs.probe import Shape
from penjing.costs.seen import Seen
from penjing.costs.units import show
from penjing.targets.read import read
from penjing.targets.runtime import Runtime

MOST_RUNS = 100
"""Runs that a file keeps, the latest: more teach nothing, and the file stays one that people can open."""

SIDES = {"original": "before", "penjing": "after"}
"""Under which names the layers of a run's networks stand where the time goes."""

FAR = (0.5, 2.0)
"""A layer's time is hardly corrected by more than this; then something else ran beside, or the table is of then."""


def correct_target(file: Path, found: Mapping[Path, Any], out: Path | None = None) -> tuple[Known, list[str]]:
    """Add what finished runs measured to a target's file, or to a copy in ``out``; return what it now holds.

    ``found`` are the runs' results by folder, unchecked. A run that the file knows changes nothing, since it is known
    by its digest, and since whatever a run measured is held against the table as it was measured. Returned with it are
    the names of the folders that were new.

    Raises: RecipeError for a file, or results, that cannot be read; PlanError for a target without times of layers, and
    for a run that was measured on another processor, runtime, version, precision, batch or number of threads.
    """
    target = read(file)
    before = known(target) if isinstance(target, Runtime) else None
    if before is None or not isinstance(target, Runtime):
        raise PlanError(f"{file} holds no times of layers to correct; penjing target measure makes such a file.")
    runs, added = {run.run: run for run in before.runs}, []
    for folder, results in found.items():
        run = _seen(folder, results, file, target, before)
        if run.run not in runs:
            runs[run.run] = run
            added.append(str(folder))
    kept = sorted(runs.values(), key=lambda run: run.date)[-MOST_RUNS:]
    after = Known(before.table, tuple(kept))
    if added or out is not None:
        _write(file, file if out is None else out, [run.to_dict() for run in kept])
    return after, added


def _seen(folder: Path, results: Any, file: Path, target: Runtime, before: Known) -> RunSeen:
    """Return what a run measured.

    Raises: PlanError for one that was measured on something else; RecipeError for results that are none.
    """
    try:
        rows = entry("the results", results, "rows")
        if not isinstance(rows, list) or not rows:
            raise ValueError(f"rows = {shown(rows)} must list networks")
        networks, times = {}, {}
        for i, row in enumerate(rows):
            name = printable(text(f"rows[{i}].name", entry(f"rows[{i}]", row, "name")))
            latency = mapping(f"rows[{i}].latency", entry(f"rows[{i}]", row, "latency"))
            _same(f"{folder} was", latency, file, target)
            times[name] = {key: latency.get(key) for key in ("median_ms", "best_ms")}
            networks[name] = _network(f"rows[{i}]", row, latency, _profile(results, name, latency), before)
        date = text("created", entry("the results", results, "created"))
        titled = printable(text("name", entry("the results", results, "name")))
    except ValueError as error:
        raise RecipeError(f"{folder}: {error}; was it written by another version of penjing?") from None
    digest = hashlib.sha256(json.dumps([date, titled, times], sort_keys=True).encode()).hexdigest()[:12]
    return RunSeen(digest, titled, date, printable(f"{latency['runtime']}, {latency['cpu']}"), networks)


def _same(who: str, latency: Mapping[str, Any], file: Path, target: Runtime) -> None:
    """Refuse what was measured under other conditions than the target's.

    Raises: PlanError naming both.
    """
    table = target.table or {}
    theirs = [latency.get(key) for key in ("runtime", "cpu", "threads", "batch")]
    ours = [f"{target.runtime} {table.get('version')} {target.precision}", table.get("cpu"), target.threads,
            target.batch]  # fmt: skip
    words = ("{}", "{}", "threads: {}", "batch: {}")
    other = [(word.format(a), word.format(b)) for word, a, b in zip(words, theirs, ours, strict=True) if a != b]
    if other:
        raise PlanError(
            f"{who} measured on {', '.join(a for a, _ in other)}, and {file} on {', '.join(b for _, b in other)}; "
            f"measure a target there by penjing target measure {target.runtime}, and correct that."
        )


def _network(
    where: str, row: Any, latency: Mapping[str, Any], profile: Mapping[Shape, tuple[int, float]], before: Known
) -> Seen:
    layers = mapping(f"{where}.layers", entry(where, row, "layers"))
    shapes = {read_shape(str(name)): count(f"{where}.layers.{name}", times, 1) for name, times in layers.items()}
    best, middle = (
        number(f"{where}.latency.{key}", entry(f"{where}.latency", latency, key), positive=True)
        for key in ("best_ms", "median_ms")
    )
    return Seen.of(shapes, before.table, best, middle, profile)


def _profile(results: Any, name: str, latency: Mapping[str, Any]) -> dict[Shape, tuple[int, float]]:
    """Return of how many layers of a shape the runtime's profile told, and what they took together, in ms.

    A profile is scaled to the median; here to the least time, as the table's layers are.
    """
    spent = mapping("spending", results.get("spending") or {})
    layers = spent.get("layers")
    if name not in SIDES or spent.get("how") != "measured" or not isinstance(layers, list):
        return {}
    best, middle = (number(key, entry("latency", latency, key), positive=True) for key in ("best_ms", "median_ms"))
    found: dict[Shape, tuple[int, float]] = {}
    for i, layer in enumerate(layers):
        side = mapping(f"spending.layers[{i}]", layer).get(SIDES[name])
        if side is None:
            continue
        where = f"spending.layers[{i}].{SIDES[name]}"
        shape = read_shape(text(f"{where}.shape", entry(where, side, "shape")))
        ms = number(f"{where}.measured_ms", entry(where, side, "measured_ms"))
        times, sum_ = found.get(shape, (0, 0.0))
        found[shape] = times + 1, sum_ + ms * best / middle
    return found


def _write(file: Path, out: Path, runs: list[dict[str, Any]]) -> None:
    """Write the file with these runs; the rest of it stays as it is written, comments among it.

    Raises: PlanError for a file that nobody could read again; PenjingError when the system does not let it.
    """
    before = file.read_text(encoding="utf-8")
    data = yaml.read(file, "a target") | {"runs": runs}
    head = f"\n{before}".partition("\nruns:")[0]
    block = pyyaml.safe_dump({"runs": runs}, sort_keys=False, width=120, allow_unicode=True)
    written = f"{head.lstrip(chr(10)).rstrip()}\n{block}"
    try:
        same = yaml.parse(written, str(out), "a target") == data
    except RecipeError:
        same = False
    if not same:
        written = pyyaml.safe_dump(data, sort_keys=False, width=120, allow_unicode=True)
    raw = written.encode()
    if len(raw) > yaml.LARGEST_BYTES:
        raise PlanError(f"{out} would have more than {yaml.LARGEST_BYTES:,} bytes; measure the target anew.")
    write_whole(out, raw)


def facts(found: Known) -> dict[str, Any]:
    """Return what runs taught of a target as plain data; nothing where there are none.

    Units: ms; ``spread`` in ms a million values that layers write.
    """
    one = found.correction
    if one is None:
        return {}
    return {
        "runs": len(found.runs),
        "factor": one.factor,
        "kinds": dict(one.kinds),
        "spread": one.spread,
        "overhead": one.overhead,
        "networks": [
            {"run": run.run, "name": f"{run.name}, {name}", "date": run.date, "table": seen.total,
             "corrected": found.predict(seen), "measured": seen.measured, "median": seen.median}
            for run in found.runs
            for name, seen in run.networks.items()
        ],
    }  # fmt: skip


def told(found: Known) -> str:
    """Return the same as text."""
    one = facts(found)
    if not one:
        return ""
    off = [[seen[how] / seen["measured"] - 1 for how in ("table", "corrected")] for seen in one["networks"]]
    rows = [
        [
            seen["name"],
            *(show(seen[key], "ms") for key in ("table", "corrected", "measured")),
            *(f"{o:+.1%}" for o in by),
        ]
        for seen, by in zip(one["networks"], off, strict=True)
    ]
    header = ["network", "by its layers", "corrected", "measured", "off", "corrected"]
    factors = {"layers": one["factor"], **one["kinds"]}
    beside = [f"{show(one['spread'], 'ms')} a million values written"] if one["spread"] else []
    beside += [f"{show(one['overhead'], 'ms')} a network"] if one["overhead"] else []
    before, after = (f"{median(abs(by[i]) for by in off):.1%}" for i in (0, 1))
    said = [
        f"Corrected by {one['runs']} {'run' if one['runs'] == 1 else 'runs'}: times are multiplied by "
        f"{', '.join(f'{factor:.3g} ({kind})' for kind, factor in factors.items())}"
        f"{'; beside them come ' if beside else ''}{' and '.join(beside)}.",
        f"These networks were predicted {before} off (median), and are {after} off as corrected.",
    ]
    if any(not FAR[0] <= factor <= FAR[1] for factor in factors.values()):
        said.append("Beware: that is far. Something else ran beside, or the table is old: measure the target anew.")
    return "\n".join([console.table("Whole networks", header, rows), "", *said])
