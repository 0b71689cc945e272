"""What steps hand on: the State of the model, and the Run it happens in."""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from penjing import targets
from penjing.core import console
from penjing.core.errors import PlanError
from penjing.core.journal import Journal
from penjing.core.plan import Plan
from penjing.core.protocols import Target
from penjing.data.data import Data
from penjing.exporting.evaluate_file import FileModule
from penjing.exporting.int8 import Int8
from penjing.exporting.measure import Timing, joined, measure, ratio
from penjing.exporting.runtimes.subject import Subject
from penjing.training.checkpoint import Checkpoint
from penjing.workers import Workers

REPEATS = 3
"""How often files are measured again whose spread does not tell which side of a bound they are on."""


@dataclass(frozen=True, eq=False)
class State:
    """A model on its way through a recipe.

    ``original`` is the user's network, plain and in eval mode, never changed; ``model`` the current one, private to
    the state. ``plans`` is the lineage: what was applied so far, in order. ``files`` are what was written of this very
    model, by name, in order; they are quantized as ``int8`` says. ``tutor`` is who teaches in the
    original's place, or None.
    """

    model: nn.Module
    original: nn.Module
    data: Data | None
    example: tuple[tuple[Any, ...], dict[str, Any]]
    plans: tuple[Plan, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    int8: Int8 | None = None
    tutor: nn.Module | None = None

    @property
    def teacher(self) -> nn.Module:
        """Who teaches: the original, or the network that the user gave for that."""
        return self.original if self.tutor is None else self.tutor

    @property
    def judged(self) -> nn.Module:
        """What is right or wrong about a picture: the model, or its quantized file, which rounds.

        Raises: PlanError where that is not written yet.
        """
        if self.int8 is None:
            return self.model
        if not self.files:
            raise PlanError("int8: the accuracy is that of the quantized file; put the step export right after int8.")
        return FileModule(next(reversed(list(self.files.values()))))

    def copy_model(self) -> nn.Module:
        """Return a copy of the current model to change."""
        return copy.deepcopy(self.model)

    def data_for(self, what: str) -> Data:
        """Return the data; ``what`` is the step that needs it, or says in words what does.

        Raises: PlanError naming it.
        """
        if self.data is None:
            who = what if " " in what else f"The step {what!r}"
            raise PlanError(f"{who} needs data, and this run has none; pass data.")
        return self.data

    def labelled_for(self, what: str) -> Data:
        """Return the data, whose pictures have a class each.

        Raises: PlanError naming what needs it.
        """
        data = self.data_for(what)
        if not data.labelled:
            raise PlanError(
                f"{what} counts wrong classes, and the pictures of {data.name} have none; leave it out, or give "
                "(x, class)."
            )
        return data

    def with_model(self, model: nn.Module, *plans: Plan) -> State:
        """Return the state with another model, of which nothing is written yet, and the plans that led there."""
        return replace(self, model=model, plans=(*self.plans, *plans), files={})

    def with_file(self, name: str, path: Path) -> State:
        """Return the state with a file added."""
        return replace(self, files={**self.files, name: path})


@dataclass
class Run:
    """Where and how a recipe runs, and the book of what happened.

    ``budget`` is what the user asked, by cost. ``threads`` and ``batch`` say how latency is measured. Facts for the
    report are filed in ``book`` by name, as plain JSON data. What was measured is written into the ``journal``, so
    that a run that goes on does not measure it again. ``at`` names the step that is being taken; ``resumable`` says
    whether anybody will go on from here, so that trainings and steps are kept; ``made`` holds what is made once.
    ``workers`` evaluate what a search asks about; ``target`` is what the network is made for; ``int8`` tells steps how
    the file will be quantized in the end, which decides its size and latency.
    """

    folder: Path
    budget: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    threads: int = 1
    batch: int = 1
    command: str = ""
    recipe: str = ""
    book: dict[str, list[Any]] = field(default_factory=dict)
    journal: Journal = field(default_factory=Journal)
    at: str = ""
    resumable: bool = False
    workers: Workers = field(default_factory=Workers)
    target: Target = field(default_factory=targets.default)
    started: float = field(default_factory=time.monotonic)
    made: dict[str, Any] = field(default_factory=dict)
    int8: Int8 | None = None
    _temporary: Path | None = None
    _staged: float = 0.0

    def note(self, name: str, *facts: Any) -> None:
        """File facts under a name, in order."""
        self.book.setdefault(name, []).extend(facts)

    def noted(self, name: str) -> list[Any]:
        """Return what was filed under a name."""
        return self.book.get(name, [])

    @contextmanager
    def stage(self, name: str, detail: str = "") -> Iterator[list[str]]:
        """Time a stage, without the stages inside it, and tell it; append to the list handed out what came of it."""
        start, before = time.perf_counter(), self._staged
        said = [detail] if detail else []
        console.emit("begin", name=name)
        yield said
        passed = time.perf_counter() - start
        seconds = passed - (self._staged - before)
        self._staged = before + passed
        told = {"name": name, "seconds": round(seconds, 2), "detail": "; ".join(said)}
        self.note("stages", told)
        console.emit("stage", **told)
        console.say(f"{name}: {told['detail'] or 'done'} ({seconds:.1f} s)")

    @property
    def runtime(self) -> tuple[str, str]:
        """What latency is measured on and in which precision: the target's, or ONNX Runtime where a model decides."""
        target: Any = self.target
        return (target.runtime, target.precision) if target.runtime else ("onnxruntime", "fp32")

    def measure(self, what: str, subjects: Mapping[str, Subject], limit: float | None = None) -> dict[str, Timing]:
        """Measure networks side by side, as this run measures latency, once; ``what`` says which they are.

        ``limit`` is a bound on how long the second takes of the first's time. Where it lies within what was measured,
        nothing is decided yet: they are opened and measured again, up to ``REPEATS`` times, and all rounds count.
        """
        runtime, precision = self.runtime

        def once() -> dict[str, Timing]:
            return measure(subjects, threads=self.threads, batch=self.batch, runtime=runtime, precision=precision)

        def taken() -> dict[str, Any]:
            timings = once()
            if limit is not None:
                first, second = list(subjects)[:2]
                for _ in range(REPEATS):
                    between = ratio(timings[second], timings[first])
                    if not between.low <= limit <= between.high:
                        break
                    timings = joined(timings, once())
            return {name: asdict(timing) for name, timing in timings.items()}

        found = self.journal.recall(f"latency of {what}", taken)
        return {name: Timing(**facts | {"samples": tuple(facts["samples"])}) for name, facts in found.items()}

    def checkpoint(self) -> Checkpoint | None:
        """Return where the next training of this step keeps itself."""
        if not self.resumable:
            return None
        count = self.made[f"trainings of {self.at}"] = self.made.get(f"trainings of {self.at}", 0) + 1
        return Checkpoint(self.folder / f"{self.at}.{count}.training")

    @property
    def scratch(self) -> Path:
        """A folder for files that nobody keeps; it goes with the run."""
        if self._temporary is None:
            self._temporary = self.folder / "scratch"
            self._temporary.mkdir(exist_ok=True)
        return self._temporary

    def close(self) -> None:
        """Remove the scratch folder."""
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None
