"""Searches played out on made-up losses, without a driver and without a network."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from penjing.allocators.problem import Problem
from penjing.core.plan import Plan
from penjing.core.search import Bound, Trial
from penjing.core.sites import Site

Loss = Callable[[np.ndarray], float]


def problem(sites: int, size: int = 10, share: float | None = None, *, step: int = 1, tread: int = 1, seed: int = 0):
    """A chain of equal layers whose cost is the sum of products of neighbours, in treads of so many units."""
    chain = [Site(f"s{i}", "channels", size, (), np.arange(size), step=step) for i in range(sites)]

    def price(plan: Plan) -> dict[str, float]:
        widths = [-(-n // tread) * tread for n in counts_of(chain, plan)]
        return {"macs": float(sum(a * b for a, b in pairwise([size, *widths, size])))}

    bounds = [] if share is None else [Bound("macs", share * price(Plan())["macs"], f"{share}x")]
    scores = {site.name: np.linspace(1, 0.5, size) for site in chain}
    return Problem("channels", chain, scores, bounds, price, seed=seed)


def counts_of(sites: list[Site], plan: Plan) -> list[int]:
    kept = {entry.site: len(entry.kept) for entry in plan}
    return [kept.get(site.name, site.size) for site in sites]


def played(allocator: Any, asked: Problem, loss: Loss) -> tuple[np.ndarray, list[list[np.ndarray]], list[list[float]]]:
    """Return the counts chosen, and by request the counts that were asked about and what they lost."""
    search, batches, losses = allocator(asked), [], []
    plans = next(search)
    while True:
        batches.append([np.array(counts_of(asked.sites, plan)) for plan in plans])
        losses.append([loss(counts) for counts in batches[-1]])
        trials = [
            Trial(plan, {**asked.price(plan), asked.minimise: lost})
            for plan, lost in zip(plans, losses[-1], strict=True)
        ]
        try:
            plans = search.send(trials)
        except StopIteration as end:
            return np.array(counts_of(asked.sites, end.value)), batches, losses


def bowl(best: np.ndarray, width: float) -> Loss:
    """The mean squared distance from the best counts, in units of ``width``."""
    return lambda counts: float(np.square((counts - best) / width).mean())
