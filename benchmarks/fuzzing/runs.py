"""Folders of runs that were stopped somewhere and then damaged; they are gone on with, or shown again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from fuzzing import stage
from fuzzing.bundles import MANIFEST, WEIGHTS, header, signed
from fuzzing.guard import Arena
from fuzzing.mutate import Draw, damaged, mutated

STOPS = (0, 1, 3, 8, 10, 12, 14, 15)
"""After so many lines of the journal a run was killed, 0: in the midst of its training."""


@st.composite
def cases(draw: Draw) -> dict[str, Any]:
    """Draw where a run was stopped, and what became of its files."""
    verb = draw(st.sampled_from(["resume", "resume", "resume", "resume", "report", "again", "again"]))
    stop = STOPS[0] if verb == "report" else draw(st.sampled_from(STOPS))
    source = stage.run() if verb == "report" else stage.stopped(stop)
    files = sorted(str(path.relative_to(source)) for path in source.rglob("*") if path.is_file())
    if verb == "report":
        files = ["results.json"]
    done: list[Any] = []
    for _ in range(draw(st.sampled_from([0, 1, 1, 2]))):
        name = draw(st.sampled_from(files))
        raw = (source / name).read_bytes()
        how = draw(st.sampled_from(["raw", "data", "data", "head", "gone", "link", "folder"]))
        if how == "raw":
            done.append([name, "bytes", damaged(draw, raw).hex()])
        elif how == "data":
            done.append([name, "bytes", _changed(draw, raw).hex()])
        elif how == "head" and name.endswith((WEIGHTS, ".training")):
            done.append([name, "bytes", header(draw, raw).hex()])
        elif verb == "resume":
            done.append([name, how, ""])
    return {"verb": verb, "stop": stop, "done": done}


def _changed(draw: Draw, raw: bytes) -> bytes:
    """Change JSON, JSON lines, or the head of a tensor file, as data."""
    lines = raw.splitlines()
    try:
        return json.dumps(mutated(draw, json.loads(raw))).encode()
    except (ValueError, RecursionError):
        pass
    try:
        at = draw(st.integers(0, max(len(lines) - 1, 0)))
        lines[at] = json.dumps(mutated(draw, json.loads(lines[at]))).encode()
        if draw(st.integers(0, 3)) == 0:
            lines.insert(draw(st.integers(0, len(lines))), lines[at])
        return b"\n".join(lines) + b"\n"
    except (ValueError, RecursionError, IndexError):
        return damaged(draw, raw)


def prepare(case: dict[str, Any], arena: Arena) -> list[str]:
    """Copy the run, damage it, and return the command."""
    source = stage.run() if case["verb"] == "report" else stage.stopped(case["stop"])
    shutil.copytree(source, arena.out)
    for name, how, facts in case["done"]:
        _damage(arena.out / name, how, facts)
    if case["verb"] == "again":
        return stage.command(arena.out)
    return [case["verb"], str(arena.out)]


def _damage(path: Path, how: str, facts: str) -> None:
    if not path.parent.is_dir():
        return
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if how == "bytes":
        path.write_bytes(bytes.fromhex(facts))
        beside = path.with_name(MANIFEST)
        if path.name == WEIGHTS and beside.is_file():
            beside.write_bytes(signed(beside.read_bytes(), path.read_bytes()))
    elif how == "link":
        path.symlink_to("nowhere")
    elif how == "folder":
        path.mkdir()
