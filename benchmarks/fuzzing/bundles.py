"""Bundles that were damaged, or made to harm."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from fuzzing import stage
from fuzzing.guard import Arena
from fuzzing.mutate import WORDS, Draw, damaged, mutated

MANIFEST, WEIGHTS = "manifest.json", "weights.safetensors"
KINDS = ("F32", "F64", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "X9")


@st.composite
def cases(draw: Draw) -> dict[str, Any]:
    """Draw what is done to a bundle: its two files as they are then, and what stands in their place."""
    place = stage.run() / "model.penjing"
    manifest, weights = (place / MANIFEST).read_bytes(), (place / WEIGHTS).read_bytes()
    for _ in range(draw(st.sampled_from([0, 1, 1, 2]))):
        how = draw(st.sampled_from(["data", "data", "data", "raw"]))
        manifest = damaged(draw, manifest) if how == "raw" else _mutated(draw, manifest)
    for _ in range(draw(st.sampled_from([0, 1, 1]))):
        how = draw(st.sampled_from(["head", "head", "head", "raw", "length"]))
        if how == "raw":
            weights = damaged(draw, weights)
        elif how == "length":
            weights = struct.pack("<Q", draw(st.sampled_from([0, 1, 2**31, 2**40, 2**63, 2**64 - 1]))) + weights[8:]
        else:
            weights = header(draw, weights)
    link = draw(st.sampled_from(["", "", "", "", "", "", MANIFEST, WEIGHTS, "folder", "absent", "loop"]))
    return {
        "manifest": manifest.decode("latin-1"), "weights": weights.hex(), "signed": draw(st.integers(0, 4)) > 0,
        "link": link, "builder": draw(st.sampled_from(["tiny:tiny", "tiny:tiny", "tiny:tiny", "", "tiny:TinyNet"])),
        "verb": draw(st.sampled_from(["export", "export", "export", "bench"])),
    }  # fmt: skip


def _mutated(draw: Draw, raw: bytes) -> bytes:
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        return raw
    return json.dumps(mutated(draw, data), indent=1).encode()


def header(draw: Draw, raw: bytes) -> bytes:
    """Change what a safetensors file says of its tensors."""
    try:
        length = struct.unpack("<Q", raw[:8])[0]
        head, rest = json.loads(raw[8 : 8 + length]), raw[8 + length :]
        name = draw(st.sampled_from(sorted(name for name in head if name != "__metadata__")))
        facts = head[name]
        shape = facts["shape"]
    except (ValueError, KeyError, TypeError, struct.error, RecursionError, IndexError):
        return raw
    how = draw(st.sampled_from(["rename", "reshape", "flat", "kind", "huge", "away", "json", "values", "shrink"]))
    if how == "rename":
        head[draw(st.sampled_from(WORDS) | st.just(f"module.{name}"))] = head.pop(name)
    elif how == "reshape":
        facts["shape"] = [*reversed(shape)]
    elif how == "flat":
        facts["shape"] = [*shape, 1] if draw(st.booleans()) else [1, *shape]
    elif how == "kind":
        facts["dtype"] = draw(st.sampled_from(KINDS))
    elif how == "huge":
        facts["shape"] = [draw(st.sampled_from([0, -1, 2**31, 2**62, 2**63])), *shape[1:]]
    elif how == "away":
        del head[name]
    elif how == "json":
        head = mutated(draw, head)
    elif how == "values":
        first, last = facts["data_offsets"]
        number = draw(st.sampled_from([float("nan"), float("inf"), 3e38, 0.0]))
        rest = rest[:first] + struct.pack("<f", number) * ((last - first) // 4) + rest[last:]
    else:
        _shrink(head, name)
    packed = json.dumps(head).encode()
    return struct.pack("<Q", len(packed)) + packed + rest


def _shrink(head: dict[str, Any], name: str) -> None:
    """Halve a tensor, and move what follows it, so that the file is sound."""
    facts = head[name]
    first, last = facts["data_offsets"]
    if not facts["shape"] or facts["shape"][0] < 2 or (last - first) % 2:
        return
    facts["shape"][0] //= 2
    facts["data_offsets"] = [first, first + (last - first) // 2]


def prepare(case: dict[str, Any], arena: Arena) -> list[str]:
    """Write the bundle and return the command."""
    place = arena.given / "b.penjing"
    place.mkdir()
    weights, manifest = bytes.fromhex(case["weights"]), case["manifest"].encode("latin-1")
    if case["signed"]:
        manifest = signed(manifest, weights)
    (place / WEIGHTS).write_bytes(weights)
    (place / MANIFEST).write_bytes(manifest)
    if case["link"]:
        _replace(place, case["link"])
    builder = ["--builder", case["builder"]] if case["builder"] else []
    if case["verb"] == "bench":
        return ["bench", str(place), "--rounds", "5"]
    return ["export", str(place), *builder, "--out", str(arena.out / "x.onnx")]


def signed(manifest: bytes, weights: bytes) -> bytes:
    """Make the manifest agree with the weights, as an attacker would."""
    try:
        data = json.loads(manifest)
    except (ValueError, RecursionError):
        return manifest
    if isinstance(data, dict) and "weights" in data:
        data["weights"] = hashlib.sha256(weights).hexdigest()
    return json.dumps(data).encode()


def _replace(place: Path, link: str) -> None:
    if link == "loop":
        (place / WEIGHTS).unlink()
        (place / WEIGHTS).symlink_to(WEIGHTS)
    elif link == "absent":
        (place / WEIGHTS).unlink()
    elif link == "folder":
        elsewhere = place.with_name("elsewhere")
        shutil.move(place, elsewhere)
        place.symlink_to(elsewhere)
    else:
        elsewhere = place.parent / link
        (place / link).rename(elsewhere)
        (place / link).symlink_to(elsewhere)
