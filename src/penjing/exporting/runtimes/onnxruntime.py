"""ONNX Runtime on the CPU."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from penjing.core.registry import register
from penjing.exporting.runtimes.operators import Executed, layers_in, named
from penjing.exporting.runtimes.subject import RUNS, WARMUP, LayerTime, Subject, check_precision, typical
from penjing.exporting.session import as_feeds, fixed_batch, random_feeds, run, session


@register("runtime")
@dataclass(frozen=True)
class onnxruntime:  # noqa: N801 - the name a target writes
    """Run ONNX files on ONNX Runtime's processor kernels, as they are: fp32 files in fp32, quantised ones in int8."""

    reads_files = True
    own_threads = False

    def version(self) -> str:
        """Return the version of the library."""
        import onnxruntime

        return str(onnxruntime.__version__)

    def precisions(self) -> list[str]:
        """Return the one that files are written in."""
        return ["fp32"]

    def open(self, subject: Subject, threads: int, batch: int | None, precision: str) -> Callable[[], Sequence[Any]]:
        """Return what runs the file once, or once on each of the subject's pictures.

        Raises: PlanError for another precision than the file's; PenjingError for what is no model, or does not take
        this batch.
        """
        check_precision("onnxruntime", precision, self.precisions())
        running = session(subject.file, threads)
        if subject.pictures:
            several = [as_feeds(running, x) for x in subject.pictures]
            run(running, several[0])
            return lambda: [running.run(None, feeds) for feeds in several]
        feeds = random_feeds(running, batch or fixed_batch(running) or 1)
        run(running, feeds)
        return partial(running.run, None, feeds)

    def profile(self, subject: Subject, threads: int, batch: int | None, precision: str) -> list[LayerTime]:
        """Return the time of each operator of the graph that the runtime makes of the file, by its own profiler.

        Raises: as ``open`` does.
        """
        check_precision("onnxruntime", precision, self.precisions())
        with tempfile.TemporaryDirectory(prefix="penjing-") as folder:
            running = session(subject.file, threads, profile=str(Path(folder) / "profile"))
            feeds = random_feeds(running, batch or fixed_batch(running) or 1)
            for _ in range(WARMUP + RUNS):
                run(running, feeds)
            events = _events(Path(running.end_profiling()))
        return named(_executed(events), layers_in(subject.file))


def _events(path: Path) -> list[dict[str, Any]]:
    """Return the events of a profile; the runtime says nothing where the disk has no room for all of it."""
    try:
        events: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
    return events


def _executed(events: Sequence[dict[str, Any]]) -> Iterator[Executed]:
    """Yield the operators of a profile, which lists those of one inference after those of the one before."""
    times: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            key = event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]
            times.setdefault(key, []).append(event["dur"] / 1e3)
    for (name, operator), ms in times.items():
        yield Executed(name, operator, "", typical(ms[WARMUP:]))
