"""Evaluations a minute of one search, by who evaluates; every row must choose the same plan.

    python benchmarks/workers.py --out benchmarks/results/workers

Cuts the digits network that penjing carries to 0.3x MACs by a random search. Nothing is trained; test is read once a
network and row, as in every run. Starting the workers counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from penjing import api, zoo
from penjing.data import load
from penjing.steps.prune import prune
from rows import arguments, fill


def row(workers: str, trials: int) -> dict[str, Any]:
    """Search once."""
    step = prune(allocator={"random": {"trials": trials}}, criterion="l1")
    network = zoo.build("penjing.zoo.digits:trained")
    found = api.run(network, load("digits"), [step], "macs=0.3x", workers=workers).results
    (search,) = found["searches"]
    best = min(found["trials"], key=lambda trial: float(trial["costs"]["error"]))
    return {
        "workers": workers,
        "trials": search["trials"],
        "seconds": search["seconds"],
        "evaluations a minute": round(60 * search["plans"] / search["seconds"], 1),
        "plan": best["plan"],
        "error": best["costs"]["error"],
        "test reads": found["test_reads"],
    }


def rows(trials: int) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name the rows."""
    for workers in ("0", "1", "2", "ray:1", "ray:2"):
        yield f"workers-{workers.replace(':', '')}", partial(row, workers, trials)


def main() -> None:
    """Fill the rows."""
    parser = arguments(__doc__, "benchmarks/results/workers")
    parser.add_argument("--trials", type=int, default=256)
    where = parser.parse_args()
    torch.set_num_threads(1)
    fill(where.out, rows(where.trials), where.only)


if __name__ == "__main__":
    main()
