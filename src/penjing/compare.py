"""Files and runs side by side, and a run's network as a file again."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
from penjing.exporting.verify import check_likeness, check_parity
from penjing.graph import form
from penjing.graph.quantized import precisions, quantized
from penjing.steps.export import ADVICE, ROUNDED


@dataclass(frozen=True)
class Exported:
    """A file, how far its outputs are from the network's, and which of its layers are in few bits, in words."""

    path: Path
    difference: str
    few_bits: str


def export_bundle(folder: Path, to: Path, builder: str = "", trust: bool = False) -> Exported:
    """Write a bundle, or that of a run's folder, as an ONNX file, once it is known to compute what the network does.

    Raises: BundleError for what is no bundle or needs its builder; ParityError when the file computes something else.
    """
    model, inputs = loaded(folder, builder, trust)
    with tempfile.TemporaryDirectory(prefix="penjing-") as scratch:
        # Into place only once it is known to compute the same.
        path = export_onnx(model, inputs, {}, Path(scratch) / "model.onnx")
        difference = _difference(model, path, inputs)
        return Exported(write_whole(to, path.read_bytes()), difference, in_few_bits(model))


def _difference(model: nn.Module, path: Path, inputs: tuple[Tensor, ...]) -> str:
    """Say how far a file is from its network.

    Raises: ParityError when it computes something else.
    """
    if any(layer.reads is not None for layer in quantized(model).values()):
        noise = check_likeness(model, path, [inputs], ROUNDED, ADVICE).noise
        return f"differs from the network by {noise:.1e} (root mean square), where values tip over in rounding"
    return f"differs from the network by {check_parity(model, path, [inputs]).relative:.1e} at most"


def in_few_bits(model: nn.Module) -> str:
    """Return which layers of a network are in few bits, in words; nothing where none is.

    >>> in_few_bits(nn.Linear(2, 2))
    ''
    """
    found: dict[str, list[str]] = {}
    for name, one in precisions(model).items():
        found.setdefault(f"{one.quantizer.name}, {one.bits} {'bit' if one.bits == 1 else 'bits'}", []).append(name)
    return "; ".join(f"{', '.join(names)} ({how})" for how, names in found.items())


def loaded(folder: Path, builder: str = "", trust: bool = False) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return the network of a bundle, or of a run's folder, and an example of its inputs.

    Raises: BundleError for what is no bundle, needs its builder, or says of no inputs.
    """
    make = partial(call_named, builder, "builder", BundleError) if builder else None
    model, shapes = bundle.load(folder, make, trust=trust, packed=False), bundle.read_manifest(folder).inputs
    if not shapes:
        raise BundleError(f"{folder} does not say what its network takes, so that nothing can be run on it.")
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
    trust: bool = False,
) -> list[dict[str, Any]]:
    """Measure ONNX files side by side; return a row a file, with the ratio of the first one's latency to its own.

    A folder is a run's or a bundle, and is exported first; ``trust`` is as in ``export_bundle``. With ``layers`` a row
    also holds the time of each operator.

    Raises: PenjingError for a file that cannot be opened; PlanError for a target that cannot be.
    """
    with tempfile.TemporaryDirectory(prefix="penjing-") as scratch:
        subjects = {str(i): _subject(file, Path(scratch) / f"{i}.onnx", trust) for i, file in enumerate(files)}
        how: dict[str, Any] = {"threads": threads, "batch": batch, "runtime": runtime, "precision": precision}
        timings = measure(subjects, **how, rounds=rounds)
        rows = []
        for shown, (key, timing) in zip(files, timings.items(), strict=True):
            facts = _benched(str(subjects[key].file), timings["0"], timing)
            if (model := subjects[key].model) is not None and (few := in_few_bits(model)):
                facts["few bits"] = few
            if layers:
                facts["layers"] = [asdict(one) for one in profile(subjects[key], **how)]
            if split is not None:
                facts["accuracy"] = evaluate_onnx(subjects[key].file, split)
            rows.append({"file": str(shown), **facts})
    return rows


def _subject(file: Path, scratch: Path, trust: bool) -> Subject:
    """Return what a user named, with its network where there is one, as a file in any case."""
    if not file.is_dir():
        return Subject(file)
    model, inputs = loaded(file, trust=trust)
    return Subject(export_bundle(file, scratch, trust=trust).path, model, (inputs, {}))


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
    few = [f"{row['file']}: in few bits are {row['few bits']}" for row in rows if "few bits" in row]
    parts = [
        "\n".join([console.table("", header, cells), where, *few]),
        *(_layers(row) for row in rows if "layers" in row),
    ]
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
