"""Evaluate one function on many items, on workers that may die or hang; who the workers are, the backend knows."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from penjing.core import console
from penjing.core.errors import PenjingError, WorkerError, reason

TRIES = 3
"""How many workers may be lost over one item."""

LOOK = 1.0
"""Seconds between two looks at whether a worker hangs."""


class Lost(Exception):
    """A worker is gone before it answered; the message says what is known of its end."""


class Worker(Protocol):
    """One who evaluates one item at a time."""

    def send(self, item: Any) -> None:
        """Give it an item.

        Raises: Lost when it is gone.
        """

    def answer(self) -> Any:
        """Return what the function returned.

        Raises: PenjingError as the function raised it, WorkerError for any other error of its own; Lost when the
        worker is gone.
        """

    def kill(self) -> None:
        """End it, whatever it does."""


class Backend(Protocol):
    """Where workers come from."""

    def hire(self) -> Worker:
        """Return a new worker, which knows the function."""

    def wait(self, workers: Sequence[Any], seconds: float) -> list[Any]:
        """Return those of the workers that have answered or are gone, after so many seconds none."""

    def close(self) -> None:
        """Give back what the backend holds."""


@dataclass
class _Task:
    index: int
    item: Any
    since: float


class Pool:
    """``count`` workers that stay from one call of ``evaluate`` to the next.

    An item whose worker dies is given to another; a worker that takes longer than ``timeout`` seconds over one item
    is killed, and the item given to another.
    """

    def __init__(self, backend: Backend, count: int, timeout: float) -> None:
        self.backend, self.count, self.timeout = backend, count, timeout
        self.idle: list[Worker] = []
        self.busy: dict[Worker, _Task] = {}

    def evaluate(self, items: Sequence[Any]) -> Generator[tuple[int, Any], None, None]:
        """Yield (position, value) of each item, in the order in which they are done.

        Raises: PenjingError as the function raised it; WorkerError when an item has lost three workers.
        """
        todo = deque(enumerate(items))
        losses = Counter[int]()
        try:
            while todo or self.busy:
                while todo and len(self.busy) < self.count:
                    self._give(*todo.popleft(), losses)
                for worker in self.backend.wait(list(self.busy), LOOK):
                    task = self.busy[worker]
                    try:
                        value = worker.answer()
                    except Lost as lost:
                        todo.appendleft(self._taken_back(worker, losses, str(lost)))
                        continue
                    self.idle.append(worker)
                    del self.busy[worker]
                    yield task.index, value
                for worker in self._hanging():
                    what = f"did not answer within {self.timeout:g} s and was killed"
                    todo.appendleft(self._taken_back(worker, losses, what))
        finally:  # whoever asked has left, so nobody waits for what is under way
            for worker in self.busy:
                worker.kill()
            self.busy.clear()

    def _give(self, index: int, item: Any, losses: Counter[int]) -> None:
        """Give an item to one who is idle, or to a new worker.

        Raises: WorkerError when new ones are lost again and again.
        """
        while True:
            waited = bool(self.idle)
            worker = self.idle.pop() if waited else self.backend.hire()
            self.busy[worker] = _Task(index, item, time.monotonic())
            try:
                worker.send(item)
                return
            except Lost as lost:
                if waited:  # it died while it had nothing to do
                    del self.busy[worker]
                    worker.kill()
                else:
                    self._taken_back(worker, losses, str(lost))

    def _taken_back(self, worker: Worker, losses: Counter[int], what: str) -> tuple[int, Any]:
        """Dismiss a worker and return what it had to do.

        Raises: WorkerError when too many were lost over it.
        """
        task = self.busy.pop(worker)
        worker.kill()
        losses[task.index] += 1
        if losses[task.index] == TRIES:
            raise WorkerError(
                f"An evaluation was given up: of {TRIES} workers the last {what}. Is there memory for "
                f"{self.count} at once? Take fewer workers or a longer timeout; the run can go on."
            )
        console.remark(f"  a worker {what}; its evaluation goes to another")
        return task.index, task.item

    def _hanging(self) -> list[Worker]:
        now = time.monotonic()
        return [worker for worker, task in self.busy.items() if now - task.since > self.timeout]

    def close(self) -> None:
        """Dismiss everybody."""
        for worker in (*self.idle, *self.busy):
            worker.kill()
        self.idle.clear()
        self.busy.clear()
        self.backend.close()


def replied(function: Any, item: Any) -> tuple[bool, Any]:
    """Return (True, value), or (False, error) with an error that any process can read."""
    try:
        return True, function(item)
    except PenjingError as error:
        return False, error
    except Exception as error:  # of the user's code, and perhaps of a class that only this process knows
        return False, WorkerError(f"An evaluation failed: {reason(error)}")


def heard(reply: tuple[bool, Any]) -> Any:
    """Return the value of a reply, or raise its error."""
    well, value = reply
    if not well:
        raise value
    return value
