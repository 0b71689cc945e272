"""The rewrites of a plan that follow a protocol. Every draft of a search asks, so what a rewrite follows is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

from penjing.core.plan import Plan
from penjing.core.registry import build, find
from penjing.core.units import Kept

P = TypeVar("P")


def changes(plan: Plan, protocol: type[P]) -> Iterator[tuple[P, Mapping[str, Kept]]]:
    """Yield each rewrite of a plan that follows a protocol, with what the plan keeps of its sites."""
    asked: Any = protocol
    for name in plan.rewrites():
        change = _following(name, find("rewrite", name), asked)
        if change is not None:
            yield change, plan.of_rewrite(name)


@cache
def _following(name: str, entry: Any, protocol: Any) -> Any:
    """Return the rewrite, or None; ``entry`` is what the name stands for, which another package may change."""
    change = build("rewrite", name)
    return change if isinstance(change, protocol) else None
