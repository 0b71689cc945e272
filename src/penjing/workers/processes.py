"""Workers that are processes of this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from typing import Any

from penjing.core.errors import WorkerError, reason
from penjing.core.interrupts import held
from penjing.workers.pool import LOOK, Lost, heard, replied


def start_method() -> str:
    """Return how processes are started here."""
    return "fork" if sys.platform == "linux" else "spawn"


class Process:
    """One process, forked on Linux: it starts at once and inherits the function as it is.

    Elsewhere it is spawned, since libraries of macOS do not bear to be forked, and Windows cannot.

    Raises: WorkerError where the function cannot be sent to a spawned process.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        context: Any = multiprocessing.get_context(start_method())
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function, os.getpid()), daemon=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"This process .* is multi-threaded, use of fork")
            try:
                with held():  # or Ctrl-C would find the worker before it is told to leave that to its parent
                    self.process.start()
            except (TypeError, AttributeError, pickle.PicklingError) as error:
                raise WorkerError(
                    f"The network or the data cannot be sent to other processes: {reason(error)} Build them from "
                    "functions and classes of a module, or search without workers."
                ) from None
        theirs.close()

    def send(self, item: Any) -> None:
        """Give it an item.

        Raises: Lost when it is gone.
        """
        try:
            self.connection.send(item)
        except OSError as error:
            raise Lost(self._end()) from error

    def answer(self) -> Any:
        """Return what the function returned.

        Raises: Lost when the process is gone; what the function raised.
        """
        try:
            reply = self.connection.recv()
        except (EOFError, OSError) as error:
            raise Lost(self._end()) from error
        return heard(reply)

    def kill(self) -> None:
        """End it."""
        self.process.kill()
        self.process.join()
        self.connection.close()

    def _end(self) -> str:
        self.process.join(1)
        code = self.process.exitcode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return f"(process {self.process.pid}) was ended by {signal.Signals(-code).name}"
        return f"(process {self.process.pid}) ended with exit code {code}"


class Processes:
    """Hires processes for one function."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def hire(self) -> Process:
        """Start one."""
        return Process(self.function)

    def wait(self, workers: Sequence[Process], seconds: float) -> list[Process]:
        """Return those that have answered or are gone."""
        ready = wait([worker.connection for worker in workers], seconds)
        return [worker for worker in workers if worker.connection in ready]

    def close(self) -> None:
        """Hold nothing."""


def _serve(connection: Connection, function: Callable[[Any], Any], parent: int) -> None:
    """Evaluate what comes, until nobody is left to ask."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent decides
    # What is printed here goes to stderr by a way of its own: a progress bar of the parent's may have been locked by
    # another of its threads when this process was forked, and nobody would ever unlock it.
    sys.stdout = sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    # Told to be a daemon, so that it never outlives its parent; but a user's loader may have processes of its own.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    # A forked process inherits an OpenMP pool whose threads do not exist; a new thread gets a new pool.
    with ThreadPoolExecutor(1) as fresh:
        while True:
            while not connection.poll(LOOK):
                _leave_without(parent)
            try:
                task = fresh.submit(replied, function, connection.recv())
                while not futures.wait([task], LOOK).done:
                    _leave_without(parent)
                connection.send(task.result())
            except (EOFError, OSError):
                return


def _leave_without(parent: int) -> None:
    """End this process where the one that asks is gone; its brothers hold copies of the pipe, which does not break."""
    if os.getppid() != parent:
        os._exit(1)
