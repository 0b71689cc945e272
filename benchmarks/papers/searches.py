"""Every searcher beside random search and the exact solver, at equal evaluations, on a network of its scale."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from papers.baselines import baseline, home
from papers.row import outcome, run
from papers.scale import Scale
from papers.subjects import Subject
from penjing.data import Data
from penjing.exporting import bundle
from searchers import foretold

MEASURE = {"divergence": {"images": 2000, "recalibrate": 2}}
BUDGET = "macs=0.4x"


def allocators(trials: int) -> dict[str, Any]:
    """Return each searcher with about so many evaluations, and greedy, which has none."""
    many = trials // 6
    half = many // 2
    crosses = {"population": many, "iterations": 5, "mutations": half, "crossovers": many - half}
    sources = max(2, round(trials / 11.5))
    return {
        "greedy": "greedy",
        "random": {"random": {"trials": trials}},
        "knapsack": {"knapsack": {"trials": trials}},
        "ddpg": {"ddpg": {"trials": trials}},
        "abcpruner": {"abcpruner": {"sources": sources, "cycles": 5}},
        "evolution": {"evolution": crosses | {"parents": max(2, many // 4)}},
        "n2n": {"n2n": {"updates": max(1, trials // 5), "rollouts": 5}},
    }


def row(
    name: str, allocator: Any, subject: Subject, seed: int, scale: Scale, where: argparse.Namespace
) -> dict[str, Any]:
    """Search, cut, recalibrate, and return what the plan taken was measured to be; nothing is trained."""
    data: Data = subject.data(where, seed, scale)
    network, _ = baseline(subject, data, seed, scale, where)
    folder = home(where, scale) / f"search_{name}_seed{seed}"
    steps = [{"prune": {"allocator": allocator, "measure": MEASURE}}, "recalibrate"]
    results, spent = run(folder, network, data, steps, BUDGET, seed)
    (plan,) = bundle.plans_of(folder)
    return {
        "scale": scale.name,
        "table": "searches",
        "network": subject.name,
        "allocator": name,
        "asked": BUDGET,
        "seed": seed,
        "evaluated": len(results["trials"]),
        "divergence": foretold(network, data, plan, MEASURE, seed),
        "validation pictures": len(data.val),
        **outcome(results),
        **spent,
    }


def rows(
    subject: Subject, seed: int, scale: Scale, where: argparse.Namespace
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name every row and say how it is made."""
    for name, allocator in allocators(scale.trials).items():
        yield f"search_{name}_seed{seed}", partial(row, name, allocator, subject, seed, scale, where)
