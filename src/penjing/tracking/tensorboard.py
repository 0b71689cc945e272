"""TensorBoard: event files in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penjing.core.errors import MissingExtra
from penjing.tracking.sink import Setting, Status

FOLDER = "tensorboard"
"""Where the event files lie in the folder of a run."""

_SETTINGS = "settings"


def check() -> None:
    """See that the library is there.

    Raises: MissingExtra when it is not.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise MissingExtra("Tracking by tensorboard", "tensorboard", "tensorboard") from None


class TensorBoard:
    """Event files in one folder; a process that goes on reads what is there and adds a file."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._kept, self._begun = _read(folder)
        self._asked: dict[str, Setting] = {}
        self._writer: Any = SummaryWriter(str(folder))

    def told(self, name: str) -> set[int]:
        """Return the steps at which a figure is kept already."""
        return self._kept.get(name, set())

    def settings(self, values: Mapping[str, Setting]) -> None:
        """Keep what the run was asked for as a table; the page HParams gets it with what came of it."""
        self._asked = dict(values)
        if not self._begun:
            rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in values.items()]
            self._writer.add_text(_SETTINGS, "\n".join(["| setting | value |", "| --- | --- |", *rows]))
            self._writer.flush()

    def figure(self, name: str, value: float, step: int) -> None:
        """Keep one value, on the disk at once: a run may be killed."""
        self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def final(self, figures: Mapping[str, float]) -> None:
        """Keep what the run came to, beside its settings."""
        self._writer.add_hparams(self._asked, dict(figures), run_name=".", global_step=0)

    def file(self, path: Path) -> None:
        """Do nothing: TensorBoard keeps no files, and the run's folder has them."""

    def close(self, status: Status) -> None:
        """Close the file; TensorBoard does not know how a run ended."""
        self._writer.close()


def _cell(value: Setting) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _read(folder: Path) -> tuple[dict[str, set[int]], bool]:
    """Return the steps of each figure that earlier processes wrote, and whether they wrote the settings."""
    if not any(folder.glob("events.out.tfevents.*")):
        return {}, False
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    tags = found.Tags()
    kept = {name: {int(event.step) for event in found.Scalars(name)} for name in tags["scalars"]}
    return kept, any(name.startswith(_SETTINGS) for name in tags["tensors"])
