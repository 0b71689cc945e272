"""What a run has found out so far, one JSON line each, so that it can go on where it stopped."""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penjing.core.errors import ResumeError

NAME = "journal.jsonl"


class Journal:
    """An append-only file of JSON lines; without a path, one that nobody keeps.

    A line is on the disk before what it tells is used, so that a run killed at any moment has at most one line torn,
    the last, which the next process drops. ``recall`` lets an interrupted run go on: what an earlier process found
    out, a measured time above all, is not found out again.

    Raises: ResumeError for a file that is no journal.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._known: dict[str, Any] = {}
        self._asked: dict[str, int] = {}
        self._lines: dict[str, list[dict[str, Any]]] = {}
        if path is not None and path.exists():
            self._read(path)

    def note(self, event: str, **facts: Any) -> None:
        """Write one line; ``event`` says what it tells of."""
        fact = {"event": event, "at": time.strftime("%Y-%m-%dT%H:%M:%S"), **facts}
        self._lines.setdefault(event, []).append(fact)
        if self.path is None:
            return
        line = json.dumps({**fact, "crc": _checksum(fact)}) + "\n"
        with self.path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def recall(self, name: str, work: Callable[[], Any]) -> Any:
        """Return what is known under this name, or do the work and write down what it returns, plain JSON data.

        A name may be asked for again and again: its first, second, third time are told apart.
        """
        time_ = self._asked[name] = self._asked.get(name, 0) + 1
        key = name if time_ == 1 else f"{name} #{time_}"
        return self.once(key, work)

    def once(self, name: str, work: Callable[[], Any]) -> Any:
        """Return what is known under this name, however often it is asked for, or do the work and write it down."""
        return self._known[name] if name in self._known else self.found(name, work())

    def known(self, name: str) -> Any:
        """Return what was found out under this name; None where nothing was."""
        return self._known.get(name)

    def found(self, name: str, value: Any) -> Any:
        """Write down what was found out, plain JSON data, and return it."""
        # Read back as a later process will read it, so that no difference can hide there.
        self._known[name] = json.loads(json.dumps(value))
        self.note("found", name=name, value=self._known[name])
        return self._known[name]

    def count(self, event: str) -> int:
        """Return how many lines tell of this event, those of earlier processes among them."""
        return len(self.lines(event))

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return what was written of this event, in order."""
        return self._lines.get(event, [])

    def _read(self, path: Path) -> None:
        text = path.read_bytes()
        whole, newline, torn = text.rpartition(b"\n")
        if torn:
            with path.open("r+b") as file:
                file.truncate(len(whole) + len(newline))
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                fact = json.loads(line)
                if fact.pop("crc") != _checksum(fact):
                    raise ValueError("its checksum is another")
                self._lines.setdefault(fact["event"], []).append(fact)
                if fact["event"] == "found":
                    self._known[str(fact["name"])] = fact["value"]
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise ResumeError(
                    f"{path}, line {number}, is not a journal's line; the run cannot go on. Start it anew elsewhere."
                ) from None


def _checksum(fact: dict[str, Any]) -> int:
    """Return what tells a line that was damaged from one that was written."""
    return zlib.crc32(json.dumps(fact).encode())
