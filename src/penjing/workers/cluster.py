"""Workers that are actors of a Ray cluster: one that is started here, or one that is there."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from penjing.core.errors import MissingExtra, WorkerError
from penjing.workers.pool import Lost, heard, replied


def _ray() -> Any:
    # Set before the import, which reads it: nobody asked for a message to Ray's makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise MissingExtra("--workers ray", "ray", "ray") from None
    return ray


class Actor:
    """One actor; ``reference`` stands for the answer that is on its way."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self.ray, self.actor, self.reference = ray, actor, None

    def send(self, item: Any) -> None:
        """Give it an item; one that is gone tells so when it is asked for the answer."""
        self.reference = self.actor.evaluate.remote(item)

    def answer(self) -> Any:
        """Return what the function returned.

        Raises: Lost when the actor is gone; what the function raised.
        """
        try:
            reply = self.ray.get(self.reference)
        except self.ray.exceptions.RayError as error:
            raise Lost(f"is gone ({_last_line(error)})") from None
        return heard(reply)

    def kill(self) -> None:
        """End it."""
        with contextlib.suppress(self.ray.exceptions.RayError):
            self.ray.kill(self.actor, no_restart=True)


class Cluster:
    """Hires actors for one function.

    ``address`` joins a cluster, an empty one starts ``count`` workers here, by default one a core. The token that a
    cluster asks for is read where Ray reads it: ``RAY_AUTH_MODE=token``, and ``RAY_AUTH_TOKEN`` or
    ``RAY_AUTH_TOKEN_PATH``. Modules of the working directory travel along; what they import must be there.

    Raises: MissingExtra without Ray; WorkerError when the cluster, or the function on it, cannot be used.
    """

    def __init__(self, function: Callable[[Any], Any], address: str = "", count: int | None = None) -> None:
        self.ray = _ray()
        self.ours = not self.ray.is_initialized()
        if self.ours:
            self._join(address, count)
        try:
            self.count = count or max(1, int(self.ray.cluster_resources().get("CPU", 1)))
            with _loose_modules_by_value(self.ray) if address else contextlib.nullcontext():
                self.function = self.ray.put(function)
            self.kind = self.ray.remote(num_cpus=1, max_restarts=0)(_Evaluator)
            self.first: Actor | None = self._actor()
            self.ray.get(self.first.actor.ready.remote())
        except Exception as error:  # whatever pickling and importing have to say
            self.close()
            raise WorkerError(
                f"The network or the data cannot be sent to the workers: {_last_line(error)}. Build them from classes "
                "of a module that the workers can import, or use a number of workers."
            ) from None
        except BaseException:  # Ctrl-C, which leaves nothing running either
            self.close()
            raise

    def _join(self, address: str, count: int | None) -> None:
        options: dict[str, Any] = {"address": address or "local", "log_to_driver": False, "logging_level": "ERROR"}
        if not address:  # one that is started here opens its ports to this machine alone
            options |= {"num_cpus": count, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        try:
            with _same_path():
                self.ray.init(**options)
        except Exception as error:  # whatever gRPC, the network or the token has to say
            raise WorkerError(
                f"The Ray cluster {address or 'on this machine'} cannot be used: {_last_line(error)}. Is it up, of "
                f"Ray {self.ray.__version__} too, and is its token in RAY_AUTH_TOKEN?"
            ) from None

    def _actor(self) -> Actor:
        return Actor(self.ray, self.kind.remote(self.function))

    def hire(self) -> Actor:
        """Start one; the cluster places it where a core is free."""
        actor, self.first = self.first or self._actor(), None
        return actor

    def wait(self, workers: Sequence[Actor], seconds: float) -> list[Actor]:
        """Return those that have answered or are gone."""
        ready, _ = self.ray.wait([worker.reference for worker in workers], num_returns=1, timeout=seconds)
        return [worker for worker in workers if worker.reference in ready]

    def close(self) -> None:
        """Leave the cluster, or end it where it was started here."""
        if self.ours:
            self.ray.shutdown()


@contextlib.contextmanager
def _same_path() -> Iterator[None]:
    """Let the processes that are started inside the block find the modules that this one finds."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(str(Path(part).resolve()) for part in sys.path)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@contextlib.contextmanager
def _loose_modules_by_value(ray: Any) -> Iterator[None]:
    """Send the classes of the user's own files along; other machines have not got them."""
    here = Path.cwd()
    files = ((module, getattr(module, "__file__", None)) for module in list(sys.modules.values()))
    loose = [m for m, file in files if file and Path(file).parent == here and m.__name__ != "__main__"]
    for module in loose:
        ray.cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in loose:
            ray.cloudpickle.unregister_pickle_by_value(module)


def _last_line(error: BaseException) -> str:
    """Return the last line of what Ray says: what went wrong over there."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300].rstrip(".") if lines else type(error).__name__


class _Evaluator:
    """What lives in the cluster."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def ready(self) -> None:
        """Answer."""

    def evaluate(self, item: Any) -> tuple[bool, Any]:
        """Return the reply."""
        return replied(self.function, item)
