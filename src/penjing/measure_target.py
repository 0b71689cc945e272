"""Measure the machine at hand: a table of layers on a runtime, a fit to it, and how far both are off."""

from __future__ import annotations

import datetime
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from penjing import zoo
from penjing.core import console
from penjing.core.errors import PlanError
from penjing.core.files import write_whole
from penjing.core.journal import Journal
from penjing.core.protocols import Runtime
from penjing.core.registry import build
from penjing.costs.design import KINDS, design, kind_of
from penjing.costs.fit import FEWEST, StaircaseModel, fit
from penjing.costs.notation import written
from penjing.costs.probe import Shape, time_shape
from penjing.costs.staircase import learn_step
from penjing.costs.table import LayerTable
from penjing.costs.units import show
from penjing.exporting.measure import check_target, cpu_name, measure, runtime_name
from penjing.exporting.onnx import export_onnx
from penjing.exporting.runtimes.subject import check_precision
from penjing.graph.trace import trace

NETWORKS = (("resnet20", 32), ("resnet56", 32), ("vgg16_bn", 32), ("resnet50", 64))
"""Whole networks, and the side of their pictures, that a prediction is held against: two narrow, then two wide."""

HELD_OUT = 6
"""Of so many layers of a kind one is not fitted, but tells how far the fit is off."""

FEWEST_LAYERS = 2 * FEWEST * len(KINDS)
"""Layers that are timed even when the time is up, so that each kind has enough."""

MOST_LAYERS = 4000
"""Layers that are timed at most: more teach nothing, and the file stays one that people can open."""

CLOCK_MS = 0.0007
"""Layers that take less are no measure of a fit: the clock does not resolve them."""

FAR = 0.25
"""An error of a whole network above which something disturbed the measurement, or it was too short."""

Timer = Callable[[Shape], float]


@dataclass(frozen=True)
class Asked:
    """What is measured: a runtime, and under which conditions."""

    runtime: str
    threads: int = 1
    batch: int = 1
    precision: str = "fp32"
    seed: int = 0


def measure_target(asked: Asked, out: Path, seconds: float = 120.0) -> dict[str, Any]:
    """Time layers for so long, fit them, hold the fit against whole networks, and write the target's file.

    What was timed is kept in ``out`` with ``.part`` behind, so that the same call goes on where one was stopped;
    ``seconds`` counts the time that timing layers takes in all of them. Returns what the file holds.

    Raises: PlanError for a target that cannot be, or that reads no ONNX, and for a ``.part`` of another;
    MissingExtra for a runtime that is not installed; RecipeError for an unknown one.
    """
    check_target(asked.threads, asked.batch)
    runtime: Runtime = build("runtime", asked.runtime)
    if not runtime.reads_files:
        raise PlanError(f"{asked.runtime} reads no ONNX, so single layers cannot be timed on it.")
    check_precision(asked.runtime, asked.precision, runtime.precisions())
    if out.is_dir():
        raise PlanError(f"{out} is a folder; give the YAML file to write with --out.")
    part = out.with_name(f"{out.name}.part")
    journal = _opened(part, asked)

    def timed(shape: Shape) -> float:
        return time_shape(shape, asked.threads, asked.batch, asked.runtime, asked.precision)

    times, step = layer_times(journal, timed, asked, seconds)
    model, error = judged(times, asked.batch)
    error["networks"] = journal.recall("whole networks", lambda: networks(model, asked))
    facts: dict[str, Any] = {
        "kind": "runtime",
        "about": f"{runtime_name(asked.runtime, asked.precision)} on {cpu_name()}: {len(times)} layers timed",
        "runtime": asked.runtime,
        "version": runtime.version(),
        "cpu": cpu_name(),
        "threads": asked.threads,
        "batch": asked.batch,
        "precision": asked.precision,
        "step": step,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "error": error,
        **model.to_dict(),
    }
    write_whole(out, yaml.safe_dump(facts, sort_keys=False, width=120).encode())
    part.unlink(missing_ok=True)
    return facts


def _opened(part: Path, asked: Asked) -> Journal:
    """Return the journal of what was timed so far.

    Raises: PlanError where that was something else.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    journal = Journal(part)
    target = (
        f"{runtime_name(asked.runtime, asked.precision)}, {asked.threads} threads, batch {asked.batch}, seed "
        f"{asked.seed}, {cpu_name()}"
    )
    begun = journal.lines("target")
    if begun and begun[0].get("target") != target:
        raise PlanError(
            f"{part} holds times of {begun[0].get('target')}, and not of {target}; remove it to start anew."
        )
    if not begun:
        journal.note("target", target=target)
    return journal


def layer_times(journal: Journal, timer: Timer, asked: Asked, seconds: float) -> tuple[dict[Shape, float], int]:
    """Time layers for so long and return their times, and the step that the first of them teach.

    Raises: PlanError for a batch with which hardly a layer is small enough.
    """
    drawn = list(islice(design(asked.seed, asked.batch), MOST_LAYERS))
    if len(drawn) < FEWEST_LAYERS:
        raise PlanError(f"With a batch of {asked.batch} too few layers are small enough to time; give a smaller batch.")
    times: dict[Shape, float] = {}
    spent = 0.0

    def timed(shape: Shape) -> float:
        nonlocal spent

        def work() -> dict[str, float]:
            begun = time.perf_counter()
            ms = timer(shape)
            return {"ms": ms, "seconds": time.perf_counter() - begun}

        found = journal.once(written(shape), work)
        times[shape] = found["ms"]
        spent += found["seconds"]
        step(found["seconds"], f"layer {len(times)}: {kind_of(shape)}")
        return times[shape]

    with console.bar("layers", seconds) as step:
        learned = learn_step(LayerTable(timed))
        for shape in drawn:
            if spent >= seconds and len(times) >= FEWEST_LAYERS:
                break
            if shape not in times:
                timed(shape)
    return times, learned


def judged(times: Mapping[Shape, float], batch: int) -> tuple[StaircaseModel, dict[str, Any]]:
    """Fit five sixths of the layers; return that fit with all their times, and how far it is off on the others."""
    count: dict[str, int] = {}
    held = set[Shape]()
    for shape in times:
        kind = kind_of(shape)
        count[kind] = count.get(kind, 0) + 1
        if count[kind] % HELD_OUT == 0:
            held.add(shape)
    model = fit({shape: ms for shape, ms in times.items() if shape not in held}, batch)
    errors = {s: abs(model.fitted(s) / times[s] - 1) for s in held if times[s] > CLOCK_MS}
    kinds = {kind: [e for s, e in errors.items() if kind_of(s) == kind] for kind in sorted(count)}
    told = {"all": list(errors.values()), **{kind: own for kind, own in kinds.items() if own}}
    facts = {
        "of": f"{len(errors)} layers held out; shares of the time measured",
        "layers": {kind: {"median": _share(own, 50), "90 %": _share(own, 90)} for kind, own in told.items()},
    }
    return StaircaseModel(batch, model.stairs, times), facts


def _share(errors: list[float], percentile: float) -> float:
    return round(float(np.percentile(errors, percentile)), 4)


def networks(model: StaircaseModel, asked: Asked) -> dict[str, Any]:
    """Measure whole networks and hold the sums of their layers' predicted times against them.

    The least time of each is compared, since a layer's time is its least, too. What is no layer, such as additions and
    pooling, is in the measurement alone.

    Units: ms.
    """
    files, predicted = {}, {}
    with tempfile.TemporaryDirectory(prefix="penjing-") as scratch, torch.random.fork_rng():
        torch.manual_seed(asked.seed)
        for name, side in console.track(NETWORKS, "whole networks"):
            network, example = zoo.build(name).eval(), (torch.randn(2, 3, side, side),)
            shown = f"{name} at {side}x{side}"
            files[shown] = export_onnx(network, example, {}, Path(scratch) / f"{name}.onnx", quick=True)
            graph = trace(network, example, proof=False)
            predicted[shown] = sum(model.predict(Shape.of(layer)) for layer in graph.layers)
        timings = measure(
            files, threads=asked.threads, batch=asked.batch, runtime=asked.runtime, precision=asked.precision
        )
    return {
        name: {
            "predicted": round(predicted[name], 4),
            "measured": round(timing.best_ms, 4),
            "median": round(timing.median_ms, 4),
            "error": round(predicted[name] / timing.best_ms - 1, 4),
        }
        for name, timing in timings.items()
    }


def told(facts: Mapping[str, Any], out: Path) -> str:
    """Return what was measured as text."""
    error = facts["error"]
    kinds = [[kind, f"{one['median']:.1%}", f"{one['90 %']:.1%}"] for kind, one in error["layers"].items()]
    rows = [
        [name, show(one["predicted"], "ms"), show(one["measured"], "ms"), f"{one['error']:+.1%}"]
        for name, one in error["networks"].items()
    ]
    worst = max((abs(one["error"]) for one in error["networks"].values()), default=0.0)
    beware = ["Beware: far off. Measure for longer, or when nothing else runs on this machine."] if worst > FAR else []
    return "\n\n".join(
        [
            console.table("How far the fit is off on layers held out", ["kind", "median", "90 %"], kinds),
            console.table("Whole networks, by their layers alone", ["network", "predicted", "measured", "off"], rows),
            f"{facts['about']}, channels in steps of {facts['step']}: {out}",
            *beware,
        ]
    )
