"""The public face: compress a model, run a recipe's steps, look at a model."""

from __future__ import annotations

import copy
import json
import math
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from penjing.core import console
from penjing.core.errors import PlanError, RecipeError
from penjing.core.registry import build
from penjing.costs.units import show
from penjing.data.data import Data
from penjing.data.load import load as load_data
from penjing.exporting.files import write_whole
from penjing.exporting.measure import measure, ratio
from penjing.exporting.session import evaluate_onnx, file_bytes
from penjing.graph.graph import Graph
from penjing.graph.trace import plain, trace
from penjing.report.build import write_report
from penjing.results import gather
from penjing.steps.price import asked
from penjing.steps.prune import prune
from penjing.steps.recover import train
from penjing.steps.state import Run, State

REFERENCES = ("random", "scratch")


@dataclass(frozen=True, eq=False)
class Result:
    """What a run returns: the smaller ``model``, and ``results``, plain data that tells everything about it.

    ``folder`` holds ``model.onnx``, ``report.html`` and ``results.json``; a temporary one goes with the result.
    """

    model: nn.Module
    results: Mapping[str, Any]
    folder: Path

    def export(self, path: str | Path) -> Path:
        """Copy the measured ONNX file."""
        return Path(shutil.copyfile(self.folder / "model.onnx", path))

    def report(self, path: str | Path) -> Path:
        """Copy the report."""
        return Path(shutil.copyfile(self.folder / "report.html", path))


def compress(
    model: nn.Module,
    data: Data | str | Path,
    budget: Mapping[str, Any] | str,
    *,
    epochs: int = 10,
    lr: float = 0.005,
    criterion: Any = "jacobian",
    allocator: Any = "greedy",
    references: Sequence[str] = (),
    **options: Any,
) -> Result:
    """Cut a trained CNN down to a budget, recover it, export it and measure the file.

    ``budget`` bounds costs, absolute with units or relative to the original: ``{"latency": "0.6x", "params": 3e5}``.
    ``epochs`` of fine-tuning, taught by the original, follow the cut; zero leaves it at closed-form recovery.
    Further options are those of ``run``.

    Raises: Infeasible when the exported file misses the budget; PenjingError for everything a user can mend.
    """
    steps: list[Any] = [prune(criterion=criterion, allocator=allocator), "reconstruct", "recalibrate"]
    if epochs:
        steps.append(train(epochs=epochs, lr=lr))
    return run(model, data, [*steps, "export", "check"], budget, references=references, **options)


def run(
    model: nn.Module,
    data: Data | str | Path | None,
    steps: Sequence[Any],
    budget: Mapping[str, Any] | str = (),  # type: ignore[assignment]
    *,
    folder: str | Path | None = None,
    example: tuple[Any, ...] | None = None,
    seed: int = 0,
    threads: int = 1,
    batch: int = 1,
    references: Sequence[str] = (),
    command: str = "",
    recipe: str = "",
) -> Result:
    """Run steps on a copy of ``model`` and report; the model given is not touched.

    ``folder`` receives the results (a temporary one by default); ``example`` is an input batch of two, taken from the
    data by default; ``threads`` and ``batch`` say how latency is measured. ``references`` adds rows to the table:
    ``"random"`` (the same widths, units chosen at random, the same recovery) and ``"scratch"`` (the same widths,
    trained from new weights for as many epochs as the steps train).

    Raises: PenjingError for everything a user can mend.
    """
    asked(budget)
    for name in references:
        if name not in REFERENCES:
            raise RecipeError(f"There is no reference {name!r}; known are {', '.join(REFERENCES)}.")
    if isinstance(data, str | Path):
        data = load_data(data, seed=seed)
    if example is None and data is None:
        raise PlanError("There is neither data nor an example input; pass one of them.")
    inputs = example if example is not None else (data.example(2),) if data is not None else ()
    place = _folder(folder)
    original = plain(model)
    state = State(copy.deepcopy(original), original, data, (inputs, {}))
    wanted = {name: one.text for name, one in asked(budget).items()}
    book = Run(place, wanted, seed, threads, batch, command, recipe)
    try:
        state = _through([build("step", step) for step in steps], state, book)
        beside = [_reference(name, state, book, [build("step", step) for step in steps]) for name in references]
        results = gather(state, book, beside)
        write_whole(place / "results.json", json.dumps(results, indent=1, default=float).encode())
        write_report(results, place / "report.html")
    finally:
        book.close()
    result = Result(state.model, results, place)
    if folder is None:
        weakref.finalize(result, shutil.rmtree, place, ignore_errors=True)
    return result


def _folder(folder: str | Path | None) -> Path:
    """Make the folder for the results.

    Raises: PlanError when it cannot be made.
    """
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="penjing-"))
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PlanError(f"The folder {folder} cannot be made: {error.strerror}. Choose another with --out.") from None
    return Path(folder)


def _through(steps: Sequence[Any], state: State, book: Run) -> State:
    """Take the state through the steps, with the validation accuracy before and after."""
    before_and_after = [build("step", "evaluate")] if state.data is not None else []
    for step in [*before_and_after, *steps, *before_and_after]:
        state = step(state, book)
    return state


def _reference(name: str, state: State, book: Run, steps: Sequence[Any]) -> tuple[str, nn.Module, str]:
    """Make a network of the result's widths by other means, with the same recovery."""
    aside = Run(book.folder, {}, book.seed + 1, book.threads, book.batch)
    fresh = State(copy.deepcopy(state.original), state.original, state.data, state.example)
    with console.quiet():
        if name == "random":
            for step in steps:
                if isinstance(step, prune):
                    fresh = _at_random(step, fresh, state, aside)
                elif type(step).__name__ not in ("export", "check"):
                    fresh = step(fresh, aside)
            return "cut at random, same widths", fresh.model, "same recovery"
        small = copy.deepcopy(state.model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(book.seed)
            for module in small.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()  # type: ignore[operator]
        trained = [step for step in steps if isinstance(step, train)]
        epochs = sum(step.epochs for step in trained)
        again = train(epochs=max(epochs, 1), lr=0.1, terms=())
        fresh = again(fresh.with_model(small), aside)
    return "from scratch, same widths", fresh.model, f"{max(epochs, 1)} epochs"


def _at_random(step: prune, fresh: State, state: State, aside: Run) -> State:
    """Keep as many units of each site as the result does, chosen at random."""
    from penjing.core.random import stream
    from penjing.core.types import Plan

    graph = trace(fresh.model, *fresh.example, proof=False)
    rng = stream(aside.seed, "reference/random")
    last = state.plans[0]
    chosen = {e.site: rng.permutation(e.size)[: len(e.kept)] for e in last if e.rewrite == step.rewrite}
    rewrite = build("rewrite", step.rewrite)
    plan = Plan.of(step.rewrite, chosen, rewrite.find(graph))
    model = fresh.copy_model()
    rewrite.apply(model, graph, plan.of_rewrite(step.rewrite))
    return fresh.with_model(model, plan)


def inspect(model: nn.Module, example: tuple[Any, ...]) -> Graph:
    """Trace a model and return its graph: layers, sites, and what is pinned and why; the model is not touched.

    Raises: TraceError when it cannot be traced.
    """
    return trace(plain(model), tuple(example))


def describe(graph: Graph) -> dict[str, Any]:
    """Return what ``inspect`` found as plain data."""
    return {
        "macs": sum(layer.macs for layer in graph.layers),
        "params": sum(math.prod(shape) for shape in graph.shapes.values()),
        "share_free": graph.share_free,
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "channels": f"{layer.in_channels}->{layer.out_channels}",
                "kernel": "x".join(map(str, layer.kernel)),
                "groups": layer.groups,
                "output": "x".join(map(str, layer.out_size)),
                "macs": layer.macs,
            }
            for layer in graph.layers
        ],
        "sites": [
            {"site": s.name, "units": s.size, "tensors": len(s.slots), "read by": len(graph.layers_reading(s))}
            for s in graph.sites
        ],
        "pinned": [{"where": n.where, "channels": n.units, "why": n.why, "line": n.line} for n in graph.notes],
    }


def described(facts: Mapping[str, Any]) -> str:
    """Return what ``describe`` says as text."""
    parts = [
        f"{show(facts['params'], 'parameters')} parameters, {show(facts['macs'], 'MACs')} MACs, "
        f"{facts['share_free']:.0%} of the inner channels may be cut"
    ]
    for title, key in (
        ("Layers", "layers"),
        ("Sites: what may be cut", "sites"),
        ("Pinned: what stays, and why", "pinned"),
    ):
        rows = facts[key]
        if rows:
            cells = [[show(v, "MACs") if k == "macs" else str(v) for k, v in row.items()] for row in rows]
            parts.append(console.table(title, list(rows[0]), cells))
    return "\n\n".join(parts)


def bench(
    files: Sequence[Path], *, threads: int = 1, batch: int = 1, rounds: int = 40, split: Any = None
) -> list[dict[str, Any]]:
    """Measure ONNX files side by side; return a row a file, with the ratio of the first one's latency to its own.

    Raises: PenjingError for a file that cannot be opened.
    """
    paths = {str(file): file for file in files}
    timings = measure(paths, threads=threads, batch=batch, rounds=rounds)
    first = timings[str(files[0])]
    rows = []
    for name, timing in timings.items():
        faster = ratio(first, timing)
        row = {"file": name, "bytes": file_bytes(name), "median_ms": timing.median_ms, "low_ms": timing.low_ms,
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
