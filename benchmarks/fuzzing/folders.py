"""Data folders that are nearly right, strange, or nonsense."""

from __future__ import annotations

import contextlib
import io
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from fuzzing.guard import Arena
from fuzzing.mutate import Draw, damaged

NAMES = (
    "a", "b", "c", "-rf", "--help", ".hidden", "with space", "new\nline", "tab\t", "quote\"'", "ünïcode", "日本",
    "\u202eevil", "\x1b[31mred", "%s%n{0}", "<script>", "a.png", "*", "~", "$(id)", "x" * 200, "bad\udcff", "null",
    "train", "val", "CON",
)  # fmt: skip
MODES = ("RGB", "L", "RGBA", "P", "1", "CMYK", "I", "F", "LA", "I;16")
FORMATS = ("png", "jpg", "bmp", "gif", "tiff", "webp", "ppm", "JPEG", "PNG")
SIZES = ((8, 8), (8, 8), (8, 8), (1, 1), (1, 900), (900, 1), (9, 7), (64, 64), (2, 2))
DTYPES = (
    "uint8", "uint8", "uint8", "int64", "float32", "bool", "object", "U5", "complex64", "datetime64[s]", "uint16", "V4",
)  # fmt: skip

OTHERS = ("0.png", "0.png", "z.png", "classes.txt", "train.npz", "Thumbs.db", ".x.png")
KINDS = ("bytes", "bytes", "link", "loop", "folder", "text", "cut", "fifo", "bomb", "closed")
TEXTS = ("", "a\nb\nc\n", "\ufeffa", "a\na")
ODD: dict[str, Any] = {
    "n": [0, 1, 2, 3, 5], "classes": [1, 2, 24, 200, -2], "dtype": DTYPES, "labels": DTYPES,
    "x": [[8, 8], [8, 8, 1], [3, 8, 8], [8, 8, 4], [0, 8, 3], [8], [], [8, 8, 3, 1], [1, 1, 3], [8, 8, 200]],
    "keys": [["y", "x"], ["x"], ["X", "y"], ["x", "y", "z"], [], ["x", "x/y"], ["../x", "y"]],
}  # fmt: skip
"""What an entry of an .npz file's description may be instead."""

LAYOUTS = ("classes", "classes", "parts", "npz", "npz", "odd")


@st.composite
def cases(draw: Draw) -> dict[str, Any]:
    """Draw a folder as a list of entries: a path, what it is, and the numbers that make it."""
    layout = draw(st.sampled_from(LAYOUTS))
    if layout == "npz":
        return {"entries": _arrays(draw), "more": _more(draw)}
    entries: list[Any] = []
    classes = draw(st.lists(st.sampled_from(NAMES[:3]) | st.sampled_from(NAMES), min_size=0, max_size=4, unique=True))
    parts = [""] if layout == "classes" else ["train/", draw(st.sampled_from(["test/", "val/"]))]
    if layout == "odd":
        parts = draw(st.lists(st.sampled_from(["", "train/", "test/", "val/", "deep/er/"]), max_size=3, unique=True))
    broken = draw(st.integers(0, 3)) == 0
    for part in parts:
        for name in classes:
            for i in range(draw(st.sampled_from([0, 1, 9, 9, 9, 9]))):
                mode, size = ("RGB", (8, 8))
                if broken and draw(st.integers(0, 4)) == 0:
                    mode, size = draw(st.sampled_from(MODES)), draw(st.sampled_from(SIZES))
                facts = [mode, list(size), draw(st.sampled_from(FORMATS)), i]
                entries.append([f"{part}{name}/{i}.png", "picture", facts])
    return {"entries": entries, "more": _more(draw)}


def _more(draw: Draw) -> list[Any]:
    """Draw what else lies about, on top of the rest."""
    found: list[Any] = []
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        home = draw(st.sampled_from(["", "a/", "b/", "train/", "train/a/", "train/a/b/c/"]))
        name = draw(st.sampled_from([*NAMES, *OTHERS]))
        kind = draw(st.sampled_from(KINDS))
        text = st.binary(max_size=60).map(bytes.hex) if kind == "bytes" else st.sampled_from(TEXTS)
        found.append([home + name, kind, draw(text)])
    return found


def _arrays(draw: Draw) -> list[Any]:
    entries: list[Any] = []
    for part in draw(st.sampled_from([["train", "test"]] * 6 + [["train"], ["train", "test", "val"], []])):
        spec: dict[str, Any] = {"n": 24, "x": [8, 8, 3], "dtype": "uint8", "labels": "int64"}
        spec |= {"keys": ["x", "y"], "classes": 3}
        for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
            key = draw(st.sampled_from(sorted(spec)))
            spec[key] = draw(st.sampled_from(ODD[key]))
        raw = _npz(spec)
        if draw(st.integers(0, 5)) == 0:
            raw = damaged(draw, raw)
        entries.append([f"{part}.npz", "bytes", raw.hex()])
    return entries


def _npz(spec: dict[str, Any]) -> bytes:
    rng = np.random.default_rng(0)
    count, few = spec["n"], abs(spec["classes"])
    x = rng.integers(0, 255, (count, *spec["x"]))
    y = np.arange(count) % few + min(spec["classes"], 0)
    arrays = [_cast(x, spec["dtype"]), _cast(y, spec["labels"]), np.arange(3)]
    out = io.BytesIO()
    np.savez(out, **dict(zip(spec["keys"], arrays, strict=False)))
    return out.getvalue()


def _cast(array: Any, kind: str) -> Any:
    if kind == "V4":
        return array.astype(np.int32).view("V4") if array.ndim else array
    return array.astype(kind)


def prepare(case: dict[str, Any], arena: Arena) -> list[str]:
    """Write the folder and return the command."""
    folder = arena.given / "data"
    folder.mkdir()
    for path, kind, facts in (*case["entries"], *case["more"]):
        with contextlib.suppress(OSError, ValueError):  # what the system cannot hold does not come to penjing either
            _write(folder, folder / path, kind, facts)
    return ["compress", "tiny:tiny", "data", "--budget", "macs=0.6x", "--criterion", "l1", "--epochs", "1", "--quiet",
            "--out", str(arena.out)]  # fmt: skip


def _write(folder: Path, path: Path, kind: str, facts: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "picture":
        mode, size, suffix, number = facts
        _picture(path.with_suffix(f".{suffix}"), mode, size, number)
    elif kind == "bytes":
        path.write_bytes(bytes.fromhex(facts))
    elif kind == "text":
        path.write_text(facts, encoding="utf-8")
    elif kind == "folder":
        path.mkdir()
    elif kind == "cut" and path.is_file():
        path.write_bytes(path.read_bytes()[:-20])
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "bomb":
        path.write_bytes(_bomb())
    elif kind == "closed":
        path.symlink_to("/proc/1/mem")
    else:
        path.symlink_to(folder if kind == "loop" else "nowhere")


@cache
def _bomb() -> bytes:
    """Return a small file that decodes to 900 million pixels."""
    out = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(out, "PNG")
    return out.getvalue()


def _picture(path: Path, mode: str, size: list[int], number: int) -> None:
    shade = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(shade)
    try:
        image.convert(mode).save(path)
    except (OSError, ValueError, KeyError):  # a format that does not know the mode
        image.convert("RGB").save(path, "PNG")
