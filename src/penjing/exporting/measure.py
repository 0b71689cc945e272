"""Time models side by side, so that what disturbs one disturbs the other.

The models take turns, A B A B, in an order that rotates. One sample is a group of runs that lasts some milliseconds,
after one run that is not counted: each model is timed with warm caches.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from penjing.core.errors import PenjingError, PlanError
from penjing.core.protocols import Runtime
from penjing.core.registry import build
from penjing.exporting.runtimes.subject import LayerTime, Subject

GROUP_MS = 5.0
"""How long one sample lasts at least."""

FEWEST_ROUNDS = 5
"""Rounds that are run even when the time is up."""

Clock = Callable[[], float]


@dataclass(frozen=True)
class Timing:
    """The latency of one model: median, 10 % and 90 % quantile, and least, of ``samples``, one a round.

    Units: ms.

    ``clock`` is ``"cpu"``, ``"process cpu"`` or ``"wall"``: on one thread the processor time is counted, which is what
    the wall clock shows where no neighbour takes the core, of the whole process where the runtime may have threads of
    its own; on several threads the wall clock itself. ``runtime`` tells name, version and precision.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    best_ms: float
    samples: tuple[float, ...]
    threads: int
    batch: int
    clock: str
    runtime: str
    cpu: str


@dataclass(frozen=True)
class Ratio:
    """How many times as long one model takes: the median over the rounds, with the 10 % and 90 % quantile."""

    median: float
    low: float
    high: float


def measure(
    paths: Mapping[str, str | os.PathLike[str] | Subject],
    *,
    threads: int = 1,
    batch: int = 1,
    runtime: str = "onnxruntime",
    precision: str = "fp32",
    rounds: int = 40,
    warmup: int = 3,
    budget_seconds: float = 20.0,
) -> dict[str, Timing]:
    """Measure the latency of ONNX files on a runtime, all under the same conditions.

    A runtime that reads no files takes a ``Subject`` that holds the module. Of a subject with pictures the time is that
    of one of them, on average, and a quarter of the rounds are run, since one is long. Stops after ``rounds`` or
    ``budget_seconds``, whichever comes first, but not before 5 rounds.

    Raises: PlanError for a target that cannot be; RecipeError for an unknown runtime; MissingExtra for one that is not
    installed; PenjingError for a file that cannot be opened, or does not take this batch.
    """
    check_target(threads, batch)
    chosen: Runtime = build("runtime", runtime)
    runs: dict[str, Callable[[], object]] = {}
    sizes: dict[str, int] = {}
    for name, path in paths.items():
        subject = path if isinstance(path, Subject) else Subject(path)
        if subject.pictures and runtime != "onnxruntime":
            raise PlanError(f"What depends on the picture is measured on onnxruntime alone, not on {runtime}.")
        sizes[name] = len(subject.pictures) or 1
        try:
            runs[name] = chosen.open(subject, threads, batch, precision)
        except (MemoryError, ValueError):  # numpy has words of its own for more than any memory holds
            raise PenjingError(f"A batch of {batch} does not fit into memory; measure a smaller one.") from None
    if max(sizes.values(), default=1) > 1:
        rounds = max(rounds // 4, FEWEST_ROUNDS)
    clock, kind = clock_for(threads, chosen.own_threads)
    samples = interleave(runs, rounds=rounds, warmup=warmup, budget_seconds=budget_seconds, clock=clock)
    name, cpu = runtime_name(runtime, precision), cpu_name()
    return {
        key: summary([ms / sizes[key] for ms in taken], threads, batch, kind, name, cpu)
        for key, taken in samples.items()
    }


def profile(
    subject: str | os.PathLike[str] | Subject,
    *,
    threads: int = 1,
    batch: int = 1,
    runtime: str = "onnxruntime",
    precision: str = "fp32",
) -> list[LayerTime]:
    """Return the time of each operator of a network, changes of layout among them, in the order of execution.

    The runtime's own clock tells them, on the wall, and what telling takes is among them: compare shares, and take
    latencies from ``measure``.

    Raises: as ``measure`` does; PlanError for a runtime that tells no times of layers.
    """
    check_target(threads, batch)
    chosen: Runtime = build("runtime", runtime)
    one = subject if isinstance(subject, Subject) else Subject(subject)
    return list(chosen.profile(one, threads, batch, precision))


def check_target(threads: int, batch: int) -> None:
    """Refuse a target that nothing can be measured on.

    Raises: PlanError.
    """
    for name, number in (("threads", threads), ("batch", batch)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise PlanError(f"{name} must be a whole number, 1 or more; got {number!r}.")
    if threads > (cores := os.cpu_count() or 1):
        raise PlanError(f"{threads} threads cannot be measured on a machine of {cores} cores; ask for fewer.")


def ratio(a: Timing, b: Timing) -> Ratio:
    """Return how many times as long ``a`` takes as ``b``; both must come from one call of ``measure``.

    Rounds are compared one by one, so that slow minutes of the machine cancel.

    Raises: PenjingError when the two were not measured together.
    """
    if (len(a.samples), a.threads, a.batch) != (len(b.samples), b.threads, b.batch):
        raise PenjingError("These two latencies were not measured together; give both files to one measurement.")
    pairs = np.array(a.samples) / np.array(b.samples)
    low, median, high = np.percentile(pairs, [10, 50, 90])
    return Ratio(float(median), float(low), float(high))


def joined(first: Mapping[str, Timing], more: Mapping[str, Timing]) -> dict[str, Timing]:
    """Return two measurements of the same files under the same conditions as one of all their rounds."""
    return {
        key: summary([*a.samples, *more[key].samples], a.threads, a.batch, a.clock, a.runtime, a.cpu)
        for key, a in first.items()
    }


def interleave(
    runs: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int,
    budget_seconds: float,
    clock: Clock,
    wall: Clock = time.perf_counter,
    group_ms: float = GROUP_MS,
) -> dict[str, list[float]]:
    """Time functions in turns and return milliseconds a run, one number a round.

    Raises: PenjingError for less than one round or nothing to run.
    """
    if rounds < 1 or not runs:
        raise PenjingError(f"Nothing to measure: {len(runs)} models, {rounds} rounds.")
    names, start = list(runs), wall()
    sizes = {}
    for name, once in runs.items():
        for _ in range(max(warmup, 1)):
            once()
        sizes[name] = max(1, math.ceil(group_ms / max(timed(once, 1, clock), 1e-4)))
    samples: dict[str, list[float]] = {name: [] for name in names}
    for done in range(rounds):
        if done >= FEWEST_ROUNDS and wall() - start > budget_seconds:
            break
        first = done % len(names)
        for name in names[first:] + names[:first]:
            runs[name]()
            samples[name].append(timed(runs[name], sizes[name], clock))
    return samples


def timed(once: Callable[[], object], times: int, clock: Clock) -> float:
    """Return the milliseconds one run takes, over so many runs in a row."""
    start = clock()
    for _ in range(times):
        once()
    return (clock() - start) / times * 1e3


def summary(samples: list[float], threads: int, batch: int, clock: str, runtime: str, cpu: str) -> Timing:
    """Condense the samples of one model."""
    low, median, high = (float(value) for value in np.percentile(samples, [10, 50, 90]))
    return Timing(median, low, high, min(samples), tuple(samples), threads, batch, clock, runtime, cpu)


def clock_for(threads: int, own_threads: bool = False) -> tuple[Clock, str]:
    """Return a clock and its name: for one thread the processor time, for more the wall clock.

    On a machine whose two cores were shared with three busy neighbours, the wall clock doubled the median; processor
    time rose by 5 %. It is the calling thread's, or, where a runtime may compute on threads of its own, that of all
    threads of the process: OpenVINO and torch, set to one thread, computed on the caller's, and both were equal.
    """
    if threads > 1:
        return time.perf_counter, "wall"
    return (time.process_time, "process cpu") if own_threads else (time.thread_time, "cpu")


def runtime_name(runtime: str = "onnxruntime", precision: str = "fp32") -> str:
    """Return the runtime, its version, and what it computes 32-bit floats in."""
    chosen: Runtime = build("runtime", runtime)
    return f"{runtime} {chosen.version()} {precision}"


def cpu_name() -> str:
    """Return the name of the processor, as far as the system tells, and its widest vector unit."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(errors="replace") if info.is_file() else ""
    facts = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    flags = facts.get("flags", "").split()
    wide = next((flag for flag in ("avx512f", "avx2", "avx") if flag in flags), "")
    name = facts.get("model name") or platform.processor() or platform.machine()
    return f"{name} ({wide})" if wide else name
