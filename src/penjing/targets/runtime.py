"""A runtime as a target: what it is asked for; its latency is measured, not modelled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from penjing.core.errors import PlanError, RecipeError, did_you_mean
from penjing.core.protocols import Draft
from penjing.targets.estimate import Estimate
from penjing.targets.numbers import Number

TELLS = {"latency": "ms"}

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
"""What a runtime may compute in; whether this one does on this machine, it says itself."""


@dataclass(frozen=True)
class Runtime:
    """A runtime that runs the exported file on this machine.

    ``runtime`` is its name, ``precision`` what it computes in. ``step`` is None where it is learned by timing.
    ``table`` holds what was measured on a machine before, as the file has it, or None, and ``digest`` tells one table
    from another. ``file`` is where it was read.
    """

    name: str
    runtime: str
    threads: int = 1
    batch: int = 1
    precision: str = "fp32"
    step: int | None = None
    about: str = ""
    table: Mapping[str, Any] | None = field(default=None, hash=False, repr=False)
    digest: str = ""
    file: str = field(default="", compare=False, repr=False)
    numbers: tuple[Number, ...] = field(default=(), compare=False, repr=False)

    @property
    def tells(self) -> Mapping[str, str]:
        """Latency alone."""
        return TELLS

    def at(
        self,
        *,
        precision: str | None = None,
        batch: int | None = None,
        frame_rate: float | None = None,
        threads: int | None = None,
    ) -> Runtime:
        """Return the same runtime computing in another precision, with another batch, or on so many threads.

        What was measured before holds for its own conditions alone, and does not come along to others.

        Raises: RecipeError for an unknown precision, a number below 1, or a frame rate, which is for power alone.
        """
        if precision is not None and precision not in PRECISIONS:
            raise RecipeError(f"{self.name} does not compute in {precision!r}.{did_you_mean(precision, PRECISIONS)}")
        if frame_rate is not None:
            raise RecipeError(f"The target {self.name} tells no power, which is all that a frame rate is for.")
        given = {"precision": precision, "threads": threads, "batch": batch}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        for name in ("threads", "batch"):
            if changes.get(name, 1) < 1:
                raise RecipeError(f"{name} of {self.name} must be 1 or more; got {changes[name]}.")
        other = any(getattr(self, name) != value for name, value in changes.items())
        return replace(self, **changes | ({"table": None, "digest": ""} if other else {}))

    def estimate(self, draft: Draft) -> Estimate:
        """Refuse: only running the exported file tells.

        Raises: PlanError.
        """
        raise PlanError(f"{self.name} is measured, not modelled; export the network and time it on {self.runtime}.")
