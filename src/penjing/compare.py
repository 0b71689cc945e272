"""Files and runs side by side, and a run's network as a file again."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from penjing.core import console
from penjing.core.errors import BundleError
from penjing.core.files import write_whole
from penjing.core.importing import call_named
from penjing.costs.units import show
from penjing.exporting import bundle
from penjing.exporting.measure import measure, ratio
from penjing.exporting.onnx import export_onnx
from penjing.exporting.session import evaluate_onnx, file_bytes
from penjing.exporting.verify import check_parity
from penjing.graph import form


def export_bundle(folder: Path, to: Path, builder: str = "", trust: bool = False) -> tuple[Path, float]:
    """Write a bundle, or that of a run's folder, as an ONNX file; return it and how far it is from the network.

    Raises: BundleError for what is no bundle or needs its builder; ParityError when the file computes something else.
    """
    make = partial(call_named, builder, "builder", BundleError) if builder else None
    model, shapes = bundle.load(folder, make, trust=trust), bundle.read_manifest(folder).inputs
    if not shapes:
        raise BundleError(f"{folder} does not say what its network takes, so it cannot be exported.")
    numbers = torch.Generator().manual_seed(0)
    inputs = tuple(torch.randn(2, *shape, generator=numbers) for shape in shapes)
    for name, tensor in form.tensors(model).items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise BundleError(f"{folder} holds NaN or infinity in {name}; take an earlier one.")
    with tempfile.TemporaryDirectory(prefix="penjing-") as scratch:
        # Into place only once it is known to compute the same.
        path = export_onnx(model, inputs, {}, Path(scratch) / "model.onnx")
        difference = check_parity(model, path, [inputs]).relative
        return write_whole(to, path.read_bytes()), difference


def bench(
    files: Sequence[Path], *, threads: int = 1, batch: int = 1, rounds: int = 40, split: Any = None
) -> list[dict[str, Any]]:
    """Measure ONNX files side by side; return a row a file, with the ratio of the first one's latency to its own.

    A folder is a run's or a bundle, and is exported first.

    Raises: PenjingError for a file that cannot be opened.
    """
    with tempfile.TemporaryDirectory(prefix="penjing-") as scratch:
        paths = {
            str(i): export_bundle(file, Path(scratch) / f"{i}.onnx")[0] if file.is_dir() else file
            for i, file in enumerate(files)
        }
        return _benched(files, paths, threads, batch, rounds, split)


def _benched(
    files: Sequence[Path], paths: Mapping[str, Path], threads: int, batch: int, rounds: int, split: Any
) -> list[dict[str, Any]]:
    timings = measure(paths, threads=threads, batch=batch, rounds=rounds)
    rows = []
    for shown, (key, timing) in zip(files, timings.items(), strict=True):
        name, faster = str(paths[key]), ratio(timings["0"], timing)
        row = {"file": str(shown), "bytes": file_bytes(name), "median_ms": timing.median_ms, "low_ms": timing.low_ms,
               "high_ms": timing.high_ms, "speed-up": faster.median, "speed-up low": faster.low,
               "speed-up high": faster.high, "threads": threads, "batch": batch, "clock": timing.clock,
               "runtime": timing.runtime, "cpu": timing.cpu}  # fmt: skip
        if split is not None:
            row["accuracy"] = evaluate_onnx(name, split)
        rows.append(row)
    return rows


def benched(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what ``bench`` measured as text."""
    header = ["file", "size", "median", "10 % to 90 %", "speed-up", "10 % to 90 %"]
    cells = []
    for r in rows:
        spread = f"{r['low_ms']:.3f} to {r['high_ms']:.3f} ms"
        faster = f"{r['speed-up low']:.2f} to {r['speed-up high']:.2f}"
        size, median = show(r["bytes"], "bytes"), show(r["median_ms"], "ms")
        cells.append([r["file"], size, median, spread, f"{r['speed-up']:.2f}x", faster])
    if "accuracy" in rows[0]:
        header.append("accuracy")
        cells = [[*cell, f"{r['accuracy']:.2f} %"] for cell, r in zip(cells, rows, strict=True)]
    one = rows[0]
    where = f"{one['runtime']}, {one['threads']} thread(s), batch {one['batch']}, {one['clock']} time, {one['cpu']}"
    return f"{console.table('', header, cells)}\n{where}"
