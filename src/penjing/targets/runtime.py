"""A runtime as a target: what it is asked for; its latency is measured, not modelled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from penjing.core.errors import PlanError, RecipeError
from penjing.core.protocols import Draft
from penjing.targets.estimate import Estimate
from penjing.targets.numbers import Number

TELLS = {"latency": "ms"}


@dataclass(frozen=True)
class Runtime:
    """A runtime that runs the exported file on this machine.

    ``runtime`` is its name, ``precision`` what it computes in. ``step`` is None where it is learned by timing.
    ``table`` holds what was measured on a machine before, as the file has it, or None.
    """

    name: str
    runtime: str
    threads: int = 1
    batch: int = 1
    precision: str = "fp32"
    step: int | None = None
    about: str = ""
    table: Mapping[str, Any] | None = field(default=None, hash=False, repr=False)
    numbers: tuple[Number, ...] = field(default=(), compare=False, repr=False)

    @property
    def tells(self) -> Mapping[str, str]:
        """Latency alone."""
        return TELLS

    def at(self, *, threads: int | None = None, batch: int | None = None) -> Runtime:
        """Return the same runtime on so many threads, with such a batch.

        Raises: RecipeError for one that is below 1.
        """
        given = {"threads": threads, "batch": batch}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        for name, value in changes.items():
            if value < 1:
                raise RecipeError(f"{name} of {self.name} must be 1 or more; got {value}.")
        return replace(self, **changes)

    def estimate(self, draft: Draft) -> Estimate:
        """Refuse: only running the exported file tells.

        Raises: PlanError.
        """
        raise PlanError(f"{self.name} is measured, not modelled; export the network and time it on {self.runtime}.")
