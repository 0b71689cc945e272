"""Functions that stop in the middle and hand out a value, where a generator cannot: deep inside somebody's calls."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Closed(BaseException):
    """Nobody waits for the rest. Not an Exception, so that ``except Exception`` in the function lets it pass."""


class Pausing(Generic[T]):
    """A function running in a thread of its own, that waits whenever it hands out a value.

    ``work`` receives a function to hand values out with. The thread runs only inside ``resume``, so that of several
    only one runs at a time. Use as a context manager: leaving it ends the function where it waits.

    >>> with Pausing(lambda hand_out: [hand_out(i * i) for i in range(3)]) as squares:
    ...     [squares.resume() for _ in range(4)]
    [0, 1, 4, None]
    """

    def __init__(self, work: Callable[[Callable[[T], None]], Any]) -> None:
        self._work = work
        self._go, self._ready = threading.Semaphore(0), threading.Semaphore(0)
        self._value: T | None = None
        self._error: BaseException | None = None
        self._closed = self._done = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Pausing[T]:
        """Start the thread, which waits for the first ``resume``."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """End the function where it waits."""
        self._closed = True
        self._go.release()
        self._thread.join()

    def resume(self) -> T | None:
        """Run the function until it hands out its next value; None when it has ended.

        Raises: whatever the function raised.
        """
        if self._done:
            return None
        self._value = None
        self._go.release()
        self._ready.acquire()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._value

    def _run(self) -> None:
        try:
            self._wait()
            self._work(self._hand_out)
        except _Closed:
            pass
        except BaseException as error:
            self._error = error
        self._done = True
        self._ready.release()

    def _hand_out(self, value: T) -> None:
        self._value = value
        self._ready.release()
        self._wait()

    def _wait(self) -> None:
        self._go.acquire()
        if self._closed:
            raise _Closed
