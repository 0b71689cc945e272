"""MLflow: one run of the experiment ``penjing``, where MLFLOW_TRACKING_URI says, by default in the run's folder."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from penjing.core import console
from penjing.core.errors import MissingExtra
from penjing.core.files import write_whole
from penjing.tracking.sink import Setting, Status

FOLDER = "mlflow"
"""Where runs are kept by default, in the folder of the run."""

_LONGEST = 6000  # letters of a parameter that MLflow's own stores keep
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_NOT_IN_A_NAME = re.compile(r"[^\w\-. /]")


def check() -> None:
    """See that the library is there.

    Raises: MissingExtra when it is not.
    """
    # MLflow sends its makers word of how it is used, unless it is told not to before it is imported.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        with _silent():
            import mlflow  # noqa: F401
    except ImportError:
        raise MissingExtra("Tracking by mlflow", "mlflow", "mlflow") from None


class MLflow:
    """One run of MLflow; ``memory`` is a file that says which, for a process that goes on."""

    def __init__(self, place: Path, memory: Path) -> None:
        with _silent():
            import mlflow

            folder = (place / FOLDER).resolve()
            if mlflow.is_tracking_uri_set():
                uri, artefacts = mlflow.get_tracking_uri(), None  # where that store wants them
            else:
                folder.mkdir(parents=True, exist_ok=True)
                uri, artefacts = f"sqlite:///{folder.as_posix()}/mlflow.db", (folder / "artifacts").as_uri()
            self._client: Any = mlflow.MlflowClient(tracking_uri=uri)
            self._run = self._gone_on(uri, memory) or self._begun(uri, artefacts, place.resolve().name, memory)

    def told(self, name: str) -> set[int]:
        """Return the steps at which a figure is kept already."""
        return {int(one.step) for one in self._client.get_metric_history(self._run, _named(name))}

    def settings(self, values: Mapping[str, Setting]) -> None:
        """Keep what the run was asked for as parameters."""
        for name, value in values.items():
            self._client.log_param(self._run, _named(name), str(value)[:_LONGEST])

    def figure(self, name: str, value: float, step: int) -> None:
        """Keep one value as a metric."""
        self._client.log_metric(self._run, _named(name), value, step=step)

    def final(self, figures: Mapping[str, float]) -> None:
        """Keep what the run came to as metrics."""
        for name, value in figures.items():
            self.figure(name, value, 0)

    def file(self, path: Path) -> None:
        """Keep a copy of a file as an artefact."""
        self._client.log_artifact(self._run, str(path))

    def close(self, status: Status) -> None:
        """Write down how the run ended."""
        self._client.set_terminated(self._run, _STATUS[status])

    def _begun(self, uri: str, artefacts: str | None, title: str, memory: Path) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "penjing"
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name, artefacts)
        run: str = self._client.create_run(experiment, run_name=title).info.run_id
        write_whole(memory, json.dumps({"uri": uri, "run": run}).encode())
        return run

    def _gone_on(self, uri: str, memory: Path) -> str | None:
        """Take up the run that an earlier process began; none where there is none, or it is kept elsewhere."""
        if not memory.exists():
            return None
        kept = json.loads(memory.read_text(encoding="utf-8"))
        if kept["uri"] != uri:
            console.say(f"MLflow has the first part of this run in {kept['uri']}; the rest goes into a run in {uri}.")
            return None
        self._client.update_run(kept["run"], status="RUNNING")
        return str(kept["run"])


def _named(name: str) -> str:
    return _NOT_IN_A_NAME.sub("_", name)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep MLflow from telling how it sets up its database, and what its own libraries will give up one day."""
    loud = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loud]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loud:
                logger.setLevel(logging.WARNING)
            yield
        finally:
            for logger, level in zip(loud, levels, strict=True):
                logger.setLevel(level)
