"""Put what a run files into a tracker's terms, and tell each thing once."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from penjing.core import console
from penjing.core.errors import PlanError, RecipeError, did_you_mean, reason
from penjing.tracking import mlflow, tensorboard
from penjing.tracking.sink import Setting, Sink, Status

TRACKERS = {"mlflow": mlflow.check, "tensorboard": tensorboard.check}

_COUNTS = ("accuracy", "macs", "params", "size", "memory", "nonzero")


def refuse_impossible(name: str | None, folder: Any) -> None:
    """Refuse, before anything starts, a tracker that cannot be.

    Raises: RecipeError for a name that is unknown; PlanError where the run has no folder of its own; MissingExtra
    where the library is not installed.
    """
    if name is None:
        return
    if name not in TRACKERS:
        raise RecipeError(f"There is no tracker {name!r}.{did_you_mean(str(name), TRACKERS)}")
    if folder is None:
        raise PlanError(f"Tracking by {name} needs a folder that stays: pass folder.")
    TRACKERS[name]()


class Tracker:
    """Listens to a run. A tracker that fails is told nothing more; the run goes on, and its result is the same.

    Figures count on through a run: its second training goes on at the epoch after the first one's last. Events tell of
    what happens, the run's book of what happened before an event could be heard; neither is told twice, whichever
    process told it.
    """

    def __init__(self, name: str = "", sink: Sink | None = None) -> None:
        self.name, self._sink = name, sink
        self._told: dict[str, set[int]] = {}

    @classmethod
    def opened(cls, name: str | None, place: Path, work: Path) -> Tracker:
        """Open a tracker for the run whose results go to ``place``, and whose files are in ``work`` until then."""
        tracker = cls(name or "")
        with tracker._shielded():
            if name == "tensorboard":
                tracker._sink = tensorboard.TensorBoard(work / tensorboard.FOLDER)
            elif name == "mlflow":
                tracker._sink = mlflow.MLflow(place, work / "mlflow.json")
        return tracker

    def settings(self, values: Mapping[str, Any]) -> None:
        """Tell what the run was asked for."""
        with self._shielded():
            if self._sink is not None:
                self._sink.settings(dict(_flat("", values)))

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take an event of the run; those that no figure shows are passed over."""
        with self._shielded():
            if event["event"] == "epoch":
                self._epoch(event, int(event["in_run"]))
            elif event["event"] == "trial":
                self._trial(event, event["best"])

    def catch_up(self, book: Mapping[str, Any]) -> None:
        """Take what is filed of epochs and trials."""
        with self._shielded():
            for step, row in enumerate(book.get("training", ()), 1):
                self._epoch(row, step)
            best: dict[str, float] = {}
            for trial in book.get("trials", ()):
                if trial.get("met") is not False:
                    value = trial["costs"].get(trial["minimise"], math.inf)
                    best[trial["step"]] = min(best.get(trial["step"], math.inf), value)
                self._trial(trial, best.get(trial["step"]))

    def finish(self, results: Mapping[str, Any], files: Sequence[Path]) -> None:
        """Tell what the run came to, and hand over its files."""
        self.catch_up(results)
        with self._shielded():
            if self._sink is not None:
                untold = {name: value for name, value in final(results) if not self._sink.told(name)}
                if untold:
                    self._sink.final(untold)
                for file in files:
                    self._sink.file(file)
        self.close("finished")

    def close(self, status: Status) -> None:
        """Say how the run ended, and tell nothing more."""
        with self._shielded():
            if self._sink is not None:
                self._sink.close(status)
        self._sink = None

    @contextlib.contextmanager
    def closing(self) -> Iterator[Tracker]:
        """Close the tracker however the block ends."""
        try:
            yield self
        except BaseException as error:
            self.close("failed" if isinstance(error, Exception) else "stopped")
            raise

    def _epoch(self, row: Mapping[str, Any], step: int) -> None:
        for key, name in (("loss", "train/loss"), ("lr", "train/lr"), ("val_loss", "val/loss")):
            self._figure(name, row[key], step)
        self._figure("val/accuracy", row["val_accuracy"], step)

    def _trial(self, trial: Mapping[str, Any], best: float | None) -> None:
        search, step = f"trials/{trial['step']}", int(trial["trial"])
        for cost, value in trial["costs"].items():
            self._figure(f"{search}/{cost}", value, step)
        if trial.get("met") is not None:
            self._figure(f"{search}/met", float(trial["met"]), step)
        self._figure(f"{search}/best", best, step)

    def _figure(self, name: str, value: float | None, step: int) -> None:
        if self._sink is None or value is None or not math.isfinite(value):
            return
        told = self._told.get(name)
        if told is None:
            told = self._told[name] = set(self._sink.told(name))
        if step not in told:
            self._sink.figure(name, float(value), step)
            told.add(step)

    @contextlib.contextmanager
    def _shielded(self) -> Iterator[None]:
        """Let no fault of a tracker end a run."""
        try:
            yield
        except Exception as error:
            self._sink = None
            console.say(f"Tracking by {self.name} ends here, and the run goes on without: {reason(error)}")


def final(results: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Give out what a run came to: the figures of each network of its table, and each bound of its budget."""
    for row in results["rows"]:
        network = re.sub(r"\W+", "-", row["name"]).strip("-")
        figures = {key: row.get(key) for key in _COUNTS}
        figures["latency_ms"] = (row.get("latency") or {}).get("median_ms")
        figures["speed-up"] = (row.get("ratio") or {}).get("median")
        yield from ((f"{network}/{key}", float(value)) for key, value in figures.items() if value is not None)
    for bound in results["budget"]:
        for key in ("limit", "measured", "met"):
            yield f"budget/{bound['cost']}/{key}", float(bound[key])


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Setting]]:
    """Give out nested settings under dotted names."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), one)
    elif isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value):
        for i, one in enumerate(value, 1):
            yield from _flat(f"{prefix}.{i:02}", one)
    elif value is not None:
        yield prefix, value if isinstance(value, bool | int | float | str) else str(value)
