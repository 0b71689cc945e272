"""Workers: one function, many items, several processes or machines. They know neither plans nor networks."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from penjing.core.errors import RecipeError


@dataclass(frozen=True)
class Workers:
    """Who evaluates: ``count`` processes here (none: this process itself), or a Ray cluster.

    ``cluster`` is ``"local"`` for one to be started, or an address; ``count`` then is how many of its cores to use,
    None all. ``timeout`` is how many seconds one evaluation may take before its worker is killed.
    """

    count: int | None = 0
    cluster: str = ""
    timeout: float = 600.0

    @classmethod
    def of(cls, text: str | int, timeout: float = 600.0) -> Workers:
        """Read ``4``, ``ray``, ``ray:4``, ``ray://head:10001`` or ``head:6379``.

        Raises: RecipeError for anything else.

        >>> Workers.of("ray:2")
        Workers(count=2, cluster='local', timeout=600.0)
        """
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < float("inf"):
            raise RecipeError(f"The timeout of an evaluation is a number of seconds above 0; got {timeout!r}.")
        said = str(text).strip()
        if re.fullmatch("[0-9]+", said):
            return cls(int(said), "", timeout)
        if found := re.fullmatch("ray(?::([1-9][0-9]*))?", said):
            return cls(int(found[1]) if found[1] else None, "local", timeout)
        if re.fullmatch(r"(ray://)?[\w.-]+:[0-9]+", said) and not said.startswith("ray:0"):
            return cls(None, said, timeout)
        raise RecipeError(
            f"workers is {text!r}; write a number of processes, ray, ray:4, or the address of a Ray cluster such as "
            "ray://head:10001."
        )


Answers: TypeAlias = Generator[tuple[int, Any], None, None]
"""(position, value) of each item; whoever closes it ends what is under way."""


class Evaluator(Protocol):
    """Evaluates items."""

    def evaluate(self, items: Sequence[Any]) -> Answers:
        """Yield (position, value) of each item, in the order in which they are done."""

    def close(self) -> None:
        """End the workers."""


class Here:
    """Evaluates in this process, one item after the other."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def evaluate(self, items: Sequence[Any]) -> Answers:
        """Yield (position, value) of each item, in order."""
        for i, item in enumerate(items):
            yield i, self.function(item)

    def close(self) -> None:
        """End nothing."""


def hired(workers: Workers, function: Callable[[Any], Any]) -> Evaluator:
    """Return who evaluates this function.

    Raises: MissingExtra when Ray is asked for and not there; WorkerError when a cluster cannot be used.
    """
    from penjing.workers.pool import Pool

    if workers.cluster:
        from penjing.workers.cluster import Cluster

        address = "" if workers.cluster == "local" else workers.cluster
        cluster = Cluster(function, address, workers.count)
        return Pool(cluster, cluster.count, workers.timeout)
    if not workers.count:
        return Here(function)
    from penjing.workers.processes import Processes

    return Pool(Processes(function), workers.count, workers.timeout)
