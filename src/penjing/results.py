"""Results: what a finished run says of itself, as plain JSON data that the report, the table and other tools read."""

from __future__ import annotations

import datetime
import os
import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

import penjing
from penjing.core.errors import PlanError
from penjing.core.protocols import Target
from penjing.costs.measured import known
from penjing.costs.notation import written
from penjing.costs.probe import Shape
from penjing.costs.seen import Seen
from penjing.data.data import Data
from penjing.exporting.evaluate_file import FileModule
from penjing.exporting.measure import Timing, cpu_name, ratio
from penjing.exporting.onnx import export_onnx
from penjing.exporting.runtimes.subject import Subject
from penjing.exporting.session import file_bytes
from penjing.graph.draft import Draft
from penjing.graph.quantized import floated
from penjing.steps.few_bits import few_bits
from penjing.steps.int8 import write_int8
from penjing.steps.on_average import averaged, shown
from penjing.steps.original import counted, drafted, estimated, original_of
from penjing.steps.spending import spending
from penjing.steps.state import Run, State
from penjing.targets.runtime import Runtime
from penjing.training.evaluate import evaluate

T = TypeVar("T")

READ, BEGUN = "the test set is read", "a process begins"
"""What the journal says of these."""

FIELDS = (
    "steps", "budget", "lowest", "sites", "pinned", "certificates", "training", "trained", "trials", "searches",
    "sensitivity", "stages", "rounds", "diagnostics", "remarks", "final", "lccl", "exits", "int8", "lightened",
    "teacher",
)  # fmt: skip
"""What of the run's book goes into the results as it stands."""


def gather(state: State, run: Run, references: Sequence[tuple[str, nn.Module, str]] = ()) -> dict[str, Any]:
    """Evaluate each network once on the test split, measure all files side by side, and write everything down.

    ``references`` are (name, network, note) to stand beside the original and the result.
    """
    import onnxruntime

    networks = [("original", state.original, ""), ("penjing", state.model, ""), *references]
    files = {"original": original_of(state, run).file}
    for i, (name, model, _) in enumerate(networks[1:]):
        ready = next(reversed(list(state.files.values())), None) if name == "penjing" else None
        files[name] = ready or _reference(model, run.scratch / f"reference{i}.onnx", state, run)
    subjects = {name: shown(Subject(files[name], model, state.example), state, run) for name, model, _ in networks}
    timings = run.measure("all files", subjects)
    drafts = {name: drafted(model, state.example) for name, model, _ in networks}
    judged = {
        name: model if state.int8 is None or model is state.original else FileModule(files[name])
        for name, model, _ in networks
    }
    rows = [
        row(name, model, judged[name], drafts[name], state, run, timings, note) | {"size": file_bytes(files[name])}
        for name, model, note in networks
    ]
    facts: dict[str, Any] = {
        "penjing": penjing.__version__,
        "name": f"{type(state.original).__name__} on {state.data.name if state.data else 'no data'}",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - run.started, 1),
        "command": run.command,
        "seed": run.seed,
        "recipe": run.recipe,
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "onnxruntime": onnxruntime.__version__,
        },
        "machine": {
            "cpu": cpu_name(),
            "cores": os.cpu_count() or 1,
            "threads": run.threads,
            "training_threads": torch.get_num_threads(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "target": {"name": run.target.name, "tells": dict(run.target.tells), "runtime": run.target.runtime},
        "data": None if state.data is None else pictures(state.data),
        "resumed": [going_on(line) for line in run.journal.lines(BEGUN)[1:]],
        "rows": rows,
        "spending": spending(state, run, pair_of(drafts), pair_of(files), pair_of(timings)),
        "test_reads": 0 if state.data is None else state.data.test_reads - run.made.get("reads before", 0),
        "files": {path.name: path.stat().st_size for path in sorted(run.folder.glob("*.onnx"))},
    }
    for name in FIELDS:
        facts[name] = run.noted(name)
    facts["few_bits"] = few_bits(state.model, drafts["penjing"].layers, run.target)
    if found := run.noted("distance"):
        told = f"the outputs differ by {found[-1]:.1f} % (root mean square) from the original's on validation pictures"
        facts["distance"] = found[-1]
        facts["remarks"] = [*facts["remarks"], f"The pictures have no classes, so there is no accuracy: {told}."]
    if run.noted("validation"):
        accuracies = run.noted("validation")
        facts["validation"] = {"before": accuracies[0], "after": accuracies[-1]}
    return facts


def _reference(model: nn.Module, path: Path, state: State, run: Run) -> Path:
    """Return the file of a network, rounded where the result's is."""
    path = export_onnx(model, *state.example, path)
    return path if state.int8 is None else write_int8(path, path, replace(state, model=model), run)


def pair_of(facts: Mapping[str, T]) -> tuple[T, T]:
    """Return what is known of the original and of the result, whose layers are held against each other."""
    return facts["original"], facts["penjing"]


def pictures(data: Data) -> dict[str, Any]:
    """Return what the pictures were; those of test are counted by whoever reads them."""
    return {"name": data.name, "train": len(data.train), "val": len(data.val), "classes": data.num_classes}


def going_on(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return when a stopped run went on, and after which step; none where it had done none."""
    done = int(line["done"])
    return {"at": line["at"], "after": line["steps"][done - 1] if done else ""}


def row(
    name: str,
    model: nn.Module,
    judged: nn.Module,
    draft: Draft,
    state: State,
    run: Run,
    timings: dict[str, Timing],
    note: str,
) -> dict[str, Any]:
    """Return one network's line of the table; the test split is read here, once, by what is judged for the model."""
    facts: dict[str, Any] = {
        "name": name,
        "note": note,
        **averaged(counted(draft), model, run),
        "target": estimated(draft, run.target),
    }
    shapes = Counter(map(Shape.of, draft.layers))
    facts["layers"] = {written(shape): times for shape, times in shapes.items()}
    facts["predicted_ms"] = predicted(shapes, run.target, timings[name])
    facts["nonzero"] = sum(int((p != 0).sum()) for p in floated(model).parameters())
    facts |= run.journal.recall(f"test of {name}", lambda: tested(name, judged, state.data, run))
    timing = timings[name]
    facts["latency"] = {key: value for key, value in asdict(timing).items() if key != "samples"}
    facts["ratio"] = asdict(ratio(timings["original"], timing))
    return facts


def predicted(shapes: Mapping[Shape, int], target: Target, timing: Timing) -> float | None:
    """Return what the target's file says that a network with these layers takes at best; None where it does not."""
    found = known(target) if isinstance(target, Runtime) else None
    if found is None:
        return None
    try:
        return found.predict(Seen.of(shapes, found.table, timing.best_ms, timing.median_ms, {}))
    except PlanError:  # a kind of layer that was not measured
        return None


def tested(name: str, model: nn.Module, data: Data | None, run: Run) -> dict[str, Any]:
    """Read the test split once and return accuracy, error, and how many pictures are wrong; nothing without classes."""
    if data is None or not data.labelled:
        return {"accuracy": None, "error": None, "wrong": 0, "of": 0}
    # Written down beforehand: a run that is killed meanwhile has read it all the same.
    run.journal.note(READ, network=name)
    found = evaluate(model, data.test)
    return {
        "accuracy": found.accuracy,
        "error": found.error,
        "wrong": found.count - found.correct,
        "of": found.count,
    }
