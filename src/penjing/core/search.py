"""What a search hands back and forth: plans, their trials under bounds, and the plan it chooses."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from penjing.core.plan import Plan


@dataclass(frozen=True)
class Bound:
    """An upper bound on one cost, already in that cost's own unit; ``asked`` is what the user wrote."""

    cost: str
    limit: float
    asked: str

    def met(self, value: float, slack: float = 1e-9) -> bool:
        """Tell whether ``value`` keeps the bound."""
        return value <= self.limit * (1 + slack)


@dataclass(frozen=True)
class Trial:
    """The costs of one plan, by name."""

    plan: Plan
    costs: Mapping[str, float]

    def __getitem__(self, cost: str) -> float:
        return self.costs[cost]

    def meets(self, bounds: Sequence[Bound]) -> bool:
        """Tell whether every bound on a measured cost is kept."""
        return all(bound.met(self.costs[bound.cost]) for bound in bounds if bound.cost in self.costs)


Search: TypeAlias = Generator[list[Plan], list[Trial], Plan]
"""Yields plans, receives their trials, and returns the plan it chooses."""
