"""Count the time of work that may be killed and gone on with, over all processes that did some of it."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from penjing.core.files import write_whole

EVERY = 20.0
"""Seconds that a kill may cost the count."""


class Clock:
    """A clock that writes itself to a file while it runs; ``wall`` and ``cpu`` are seconds so far.

    The processor's time says what work costs where other jobs share the cores.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        before = json.loads(path.read_text()) if path.exists() else {"wall": 0.0, "cpu": 0.0}
        self._before = before["wall"], before["cpu"]
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self._start = time.monotonic(), time.process_time()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = threading.Thread(target=self._write_on, daemon=True)
        self._writer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._writer.join()
        self._write()

    @property
    def wall(self) -> float:
        """Seconds that passed."""
        return self._before[0] + time.monotonic() - self._start[0]

    @property
    def cpu(self) -> float:
        """Seconds of the processor, of all threads."""
        return self._before[1] + time.process_time() - self._start[1]

    def minutes(self) -> dict[str, float]:
        """Return both as a row states them."""
        return {"minutes": round(self.wall / 60, 2), "cpu minutes": round(self.cpu / 60, 2)}

    def _write(self) -> None:
        write_whole(self.path, json.dumps({"wall": self.wall, "cpu": self.cpu}).encode())

    def _write_on(self) -> None:
        while not self._over.wait(EVERY):
            self._write()
