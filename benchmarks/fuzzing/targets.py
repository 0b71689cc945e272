"""Files of targets that are nearly right, changed as data and as text: hardware, measured tables, and flags beside."""

from __future__ import annotations

import json
import os
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from fuzzing import stage
from fuzzing.guard import Arena
from fuzzing.mutate import WORDS, Draw, damaged, mutated

LAYERS = 90
"""Layers of the measured table."""

COSTS = ("latency", "energy", "power", "peak_power", "sram", "flash", "dram_bytes", "macs", "size")
NUMBERS = ("200", "-200", "0", "-0", "1e400", "1e-300", ".nan", ".inf", "0x10", "1_000", "1,5", "64 bit * 60", "9" * 30,
           "1:30", "1e9", "1e18", "0.5")  # fmt: skip
UNITS = ("", " MHz", " MHz ", " mhz", " GHz", " B", " KiB", " KB", " GB/s", " bit * 60 MHz", " pJ", " pJ/B", " mW",
         " us", " fps", "%", " %", " Hz", " µs", " MiB")  # fmt: skip
PRECISIONS = ("fp32", "bf16", "fp16", "int8", "int16", "int4", "fp", "")
RATES = ("30", "1", "0", "-1", "nan", "inf", "1e300", "1e-300", "many", "30 fps", "")
KINDS = (*["file"] * 40, "folder", "pipe", "zero", "absent", "loop")


@cache
def presets() -> list[dict[str, Any]]:
    """Return the targets that penjing brings along, as data."""
    from penjing.targets.find import PRESETS

    return [yaml.safe_load(path.read_text()) for path in sorted(PRESETS.glob("*.yaml"))]


@cache
def table() -> dict[str, Any]:
    """Return a measured target of this machine, corrected by a run, as data."""
    from penjing.correct_target import correct_target
    from penjing.costs.design import design
    from penjing.costs.fit import fit
    from penjing.exporting.measure import cpu_name
    from penjing.exporting.runtimes.onnxruntime import onnxruntime
    from penjing.publish import read_results

    times = {shape: 0.001 + shape.macs / 5e7 for shape in islice(design(0, 1), LAYERS)}
    facts = {"kind": "runtime", "about": "a made table", "runtime": "onnxruntime", "threads": 1, "batch": 1,
             "precision": "fp32", "version": onnxruntime().version(), "cpu": cpu_name(), "step": 8,
             **fit(times).to_dict()}  # fmt: skip
    file = stage.home() / "table.yaml"
    file.write_text(yaml.safe_dump(facts, sort_keys=False))
    correct_target(file, {stage.run(): read_results(stage.run())})
    found: dict[str, Any] = yaml.safe_load(file.read_text())
    return found


@st.composite
def cases(draw: Draw) -> dict[str, Any]:
    """Draw a target's file as text, what it is, and what is asked of it."""
    verb = draw(st.sampled_from(["check", "check", "check", "show", "dry run", "correct"]))
    data = table() if verb == "correct" or draw(st.integers(0, 2)) == 0 else draw(st.sampled_from(presets()))
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 3]))):
        data = _with_number(draw, data) if draw(st.booleans()) else mutated(draw, data)
    raw = yaml.safe_dump(data, sort_keys=False, allow_unicode=draw(st.booleans())).encode(errors="replace")
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 1, 3]))):
        raw = damaged(draw, raw)
    case = {"verb": verb, "kind": draw(st.sampled_from(KINDS)), "target": raw.decode("latin-1")}
    if verb == "correct":
        results = json.loads((stage.run() / "results.json").read_text())
        for _ in range(draw(st.sampled_from([0, 1, 2]))):
            results = mutated(draw, results)
        case["results"] = json.dumps(results)
    if verb == "dry run":
        cost, share = draw(st.sampled_from(COSTS)), draw(st.sampled_from(["0.7x", "0.5x", "90%", "1mJ", "10kB", "1ms"]))
        flags = [f"--budget={cost}={share}"]
        for name, choices in (("precision", PRECISIONS), ("frame-rate", RATES)):
            if draw(st.integers(0, 2)) == 0:
                flags.append(f"--{name}={draw(st.sampled_from(choices + WORDS))}".replace("\0", ""))
        case["flags"] = flags
    return case


def _with_number(draw: Draw, data: Any) -> Any:
    """Return the data with one of its keys, or a new one, set to a number with some unit."""
    from penjing.targets.read import ACCELERATOR, GROUPS, RUNTIME

    if not isinstance(data, dict):
        return data
    text = draw(st.sampled_from(NUMBERS)) + draw(st.sampled_from(UNITS))
    value: Any = draw(st.sampled_from([text, {"value": text}, {"value": text, "source": "me", "confirmed": True}]))
    key = draw(st.sampled_from([*map(str, data), *ACCELERATOR, *GROUPS, *RUNTIME]))
    if key in GROUPS:
        value = {draw(st.sampled_from([*PRECISIONS[:5], "sums", "inputs", "weights"])): value}
    return {**data, key: value}


def prepare(case: dict[str, Any], arena: Arena) -> list[str]:
    """Write the file, or what stands in its place, and return the command."""
    file = arena.given / "t.yaml"
    if case["kind"] == "file":
        file.write_bytes(case["target"].encode("latin-1"))
    elif case["kind"] == "folder":
        file.mkdir()
    elif case["kind"] == "pipe":
        os.mkfifo(file)
    elif case["kind"] != "absent":
        file.symlink_to("/dev/zero" if case["kind"] == "zero" else file)
    if case["verb"] == "correct":
        run = Path("run")
        (arena.given / run).mkdir()
        (arena.given / run / "results.json").write_text(case["results"])
        return ["target", "correct", "t.yaml", str(run), "--out", str(arena.out / "new.yaml")]
    if case["verb"] == "dry run":
        words = ["--target", "t.yaml", "--criterion", "l1", "--epochs", "0", "--dry-run", "--quiet"]
        return ["compress", "tiny:tiny", str(stage.pictures()), *words, *case["flags"]]
    return ["target", case["verb"], "./t.yaml"]
