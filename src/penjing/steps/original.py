"""The original: what it costs, the yardstick of relative bounds, of corrections and of every speed-up."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from penjing.core.plan import Plan
from penjing.core.protocols import Target, Targeted
from penjing.core.registry import build, entries
from penjing.costs.units import show
from penjing.exporting.measure import Timing
from penjing.exporting.onnx import export_onnx
from penjing.exporting.runtimes.subject import Subject
from penjing.exporting.session import file_bytes
from penjing.graph.draft import Draft
from penjing.graph.trace import trace
from penjing.steps.state import Run, State
from penjing.training.evaluate import evaluate


class Original:
    """The user's network as it was given. Its file is made, and timed, when first asked for, each as a stage."""

    def __init__(self, state: State, run: Run) -> None:
        self._state, self._run = state, run

    @cached_property
    def counts(self) -> dict[str, float]:
        """The costs that are arithmetic, those that the target tells among them."""
        draft = drafted(self._state.original, self._state.example)
        return counted(draft) | estimated(draft, self._run.target)

    def cost(self, name: str) -> float:
        """Return a cost; the error is that on validation, and what only the exported file decides is measured on it.

        Raises: PlanError for the error where pictures have no classes.
        """
        if name == "error":
            return self._error
        if name == "size":
            return float(file_bytes(self.file))
        measured = name == "latency" and self._run.target.runtime
        return self.timing.median_ms if measured else self.counts[name]

    @cached_property
    def _error(self) -> float:
        return evaluate(self._state.original, self._state.labelled_for("The budget error").val).error

    @cached_property
    def file(self) -> Path:
        """The original as ONNX, among the run's files that nobody keeps."""
        with self._stage("export the original"):
            return export_onnx(self._state.original, *self._state.example, self._run.scratch / "original.onnx")

    @property
    def subject(self) -> Subject:
        """The original as runtimes take it."""
        return Subject(self.file, self._state.original, self._state.example)

    @cached_property
    def timing(self) -> Timing:
        """The original's first measurement, which later ones are scaled to."""
        subject = self.subject
        whose = "the grown original" if self._run.noted("grown") else "the original"  # told apart when gone on with
        with self._stage("time the original") as said:
            timing = self._run.measure(whose, {"original": subject})["original"]
            said.append(show(timing.median_ms, "ms"))
        return timing

    def _stage(self, name: str) -> AbstractContextManager[list[str]]:
        """Return a stage; one that an earlier process has told is done again without a word, since its file is gone."""
        told = any(stage["name"] == name for stage in self._run.noted("stages"))
        return nullcontext([]) if told else self._run.stage(name)


def original_of(state: State, run: Run) -> Original:
    """Return the original; the same one all through a run."""
    if "original" not in run.made:
        run.made["original"] = Original(state, run)
    original: Original = run.made["original"]
    return original


def drafted(model: nn.Module, example: tuple[tuple[Any, ...], dict[str, Any]]) -> Draft:
    """Return a network as a draft of itself."""
    return Draft(trace(model, *example, proof=False), Plan(), lambda: model)


def counted(draft: Draft) -> dict[str, float]:
    """Return every cost of a draft that is arithmetic and the same on all hardware, by name."""
    return {name: float(build("cost", name)(draft)) for name in cheap_costs()}


def estimated(draft: Draft, target: Target) -> dict[str, float]:
    """Return every cost that a target tells by a model of its own, by name."""
    if target.runtime:
        return {}
    estimate = target.estimate(draft)
    return {name: estimate.cost(name) for name in target.tells}


def cheap_costs() -> list[str]:
    """Return the names of the costs that are arithmetic and the same on all hardware."""
    return [
        name
        for name, cost in entries("cost").items()
        if isinstance(cost, type) and getattr(cost, "cheap", False) and not issubclass(cost, Targeted)
    ]
