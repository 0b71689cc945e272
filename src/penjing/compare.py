"""Files and runs side by side, and a run's network as a file again."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import console
from penjing.core.errors import BundleError
from penjing.core.files import write_whole
from penjing.core.importing import call_named
from penjing.costs.units import show
from penjing.exporting import bundle
from penjing.exporting.measure import Timing, measure, profile, ratio
from penjing.exporting.onnx import export_onnx
from penjing.exporting.runtimes.subject import Subject
from penjing.exporting.session import evaluate_onnx, file_bytes
from penjing.exporting.verify import check_parity
from penjing.graph import form


def export_bundle(folder: Path, to: Path, builder: str = "", trust: bool = False) -> tuple[Path, float]:
    """Write a bundle, or that of a run's folder, as an ONNX file; return it and how far it is from the network.

    Raises: BundleError for what is no bundle or needs its builder; ParityError when the file computes something else.
    """
    model, inputs = _loaded(folder, builder, trust)
    with tempfile.TemporaryDirectory(prefix="penjing-") as scratch:
        # Into place only once it is known to compute the same.
        path = export_onnx(model, inputs, {}, Path(scratch) / "model.onnx")
        difference = check_parity(model, path, [inputs]).relative
        return write_whole(to, path.read_bytes()), difference


def _loaded(folder: Path, builder: str = "", trust: bool = False) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return a bundle's network and an example of its inputs."""
    make = partial(call_named, builder, "builder", BundleError) if builder else None
    model, shapes = bundle.load(folder, make, trust=trust, packed=False), bundle.read_manifest(folder).inputs
    if not shapes:
        raise BundleError(f"{folder} does not say what its network takes, so it cannot be exported.")
    numbers = torch.Generator().manual_seed(0)
    for name, tensor in form.tensors(model).items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise BundleError(f"{folder} holds NaN or infinity in {name}; take an earlier one.")
    return model, tuple(torch.randn(2, *shape, generator=numbers) for shape in shapes)


def bench(
    files: Sequence[Path],
    *,
    threads: int = 1,
    batch: int = 1,
    rounds: int = 40,
    split: Any = None,
    runtime: str = "onnxruntime",
    precision: str = "fp32",
    layers: bool = False,
) -> list[dict[str, Any]]:
    """Measure ONNX files side by side; return a row a file, with the ratio of the first one's latency to its own.

    A folder is a run's or a bundle, and is exported first. With ``layers`` a row also holds the time of each operator.

    Raises: PenjingError for a file that cannot be opened; PlanError for a target that cannot be.
    """
    with tempfile.TemporaryDirectory(prefix="penjing-") as scratch:
        subjects = {str(i): _subject(file, Path(scratch) / f"{i}.onnx") for i, file in enumerate(files)}
        how: dict[str, Any] = {"threads": threads, "batch": batch, "runtime": runtime, "precision": precision}
        timings = measure(subjects, **how, rounds=rounds)
        rows = []
        for shown, (key, timing) in zip(files, timings.items(), strict=True):
            facts = _benched(str(subjects[key].file), timings["0"], timing)
            if layers:
                facts["layers"] = [asdict(one) for one in profile(subjects[key], **how)]
            if split is not None:
                facts["accuracy"] = evaluate_onnx(subjects[key].file, split)
            rows.append({"file": str(shown), **facts})
    return rows


def _subject(file: Path, scratch: Path) -> Subject:
    """Return what a user named, with its network where there is one, as a file in any case."""
    if not file.is_dir():
        return Subject(file)
    model, inputs = _loaded(file)
    return Subject(export_bundle(file, scratch)[0], model, (inputs, {}))


def _benched(name: str, first: Timing, timing: Timing) -> dict[str, Any]:
    faster = ratio(first, timing)
    return {"bytes": file_bytes(name), "median_ms": timing.median_ms, "low_ms": timing.low_ms,
            "high_ms": timing.high_ms, "speed-up": faster.median, "speed-up low": faster.low,
            "speed-up high": faster.high, "threads": timing.threads, "batch": timing.batch, "clock": timing.clock,
            "runtime": timing.runtime, "cpu": timing.cpu}  # fmt: skip


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
    parts = [f"{console.table('', header, cells)}\n{where}", *(_layers(row) for row in rows if "layers" in row)]
    return "\n\n".join(parts)


def _layers(row: Mapping[str, Any]) -> str:
    """Return the operators of one file, in the order of execution, as text."""
    cells = [
        [one["name"], one["operator"], one["kernel"], f"{one['ms']:.4f} ms", f"{one['share']:.1%}"]
        for one in row["layers"]
    ]
    total = show(sum(one["ms"] for one in row["layers"]), "ms")
    return console.table(
        f"{row['file']}: {total} in operators", ["layer", "operator", "kernel", "time", "share"], cells
    )
