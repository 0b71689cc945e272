"""Searches at equal numbers of evaluations: the digits network cut to 0.3x of its MACs by each allocator, five seeds.

    python benchmarks/searchers.py --out benchmarks/results/searchers

Every allocator sees the scores of ``jacobian`` and has the same trials judged: how far the outputs on the validation
pictures are from the original's, once batch norm is refreshed on one batch. Rows tell what the plan taken was measured
to be, and how many of the 360 test pictures (read once a row) the cut network names wrongly once batch norm is
recalibrated, without any training or reconstruction.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from penjing import zoo
from penjing.core.plan import Plan
from penjing.core.registry import build
from penjing.data import Data, digits
from penjing.graph.trace import plain, trace
from penjing.rewrites.channels import channels
from penjing.steps.prune import prune
from penjing.steps.recalibrate import recalibrate
from penjing.steps.state import Run, State
from penjing.steps.trial import Attempt
from penjing.training.evaluate import evaluate
from rows import arguments, fill

MEASURE = {"divergence": {"recalibrate": 1}}

ALLOCATORS: dict[str, Any] = {
    "greedy": "greedy",
    "knapsack": {"knapsack": {"trials": 114}},
    "random": {"random": {"trials": 114}},
    "abcpruner": {"abcpruner": {"sources": 10, "cycles": 5}},
    "evolution": {"evolution": {"population": 19, "iterations": 5, "parents": 5, "mutations": 9, "crossovers": 9}},
    "n2n": {"n2n": {"updates": 22}},
    "ddpg": {"ddpg": {"trials": 114}},
}
"""At most 114 evaluations each."""

SEEDS = 5


def macs(model: nn.Module) -> int:
    """Count the multiply-accumulates of one picture."""
    return sum(layer.macs for layer in trace(model, (digits().example(2),), proof=False).layers)


def foretold(original: nn.Module, data: Data, plan: Plan, measure: Any, seed: int) -> float:
    """Return what a plan is measured to be before anything is recovered."""
    cost = build("cost", measure).on(data, seed).beside(plain(original))
    graph = trace(plain(original), (data.example(2),), proof=False)
    return float(Attempt(plain(original), graph, {"channels": channels()}, cost)(plan))


def row(allocator: str, seed: int) -> dict[str, Any]:
    """Cut with one allocator and one seed, and measure what it chose."""
    original = plain(zoo.digits_net(pretrained=True))
    data = digits()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), {"macs": "0.3x"}, seed)
        state = State(copy.deepcopy(original), original, data, ((data.example(2),), {}))
        start = time.perf_counter()
        state = prune(allocator=ALLOCATORS[allocator], measure=MEASURE)(state, run)
        seconds = time.perf_counter() - start
        (plan,) = state.plans
        found = {
            "allocator": allocator,
            "seed": seed,
            "evaluated": len(run.noted("trials")),
            "divergence": foretold(original, data, plan, MEASURE, seed),
            "macs": macs(state.model) / macs(original),
            "seconds": round(seconds, 1),
        }
        state = recalibrate()(state, run)
        run.close()
    tested = evaluate(state.model, data.test)
    return found | {"wrong": tested.count - tested.correct, "of": tested.count, "test reads": data.test_reads}


def rows() -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name every row and say how it is made."""
    for seed in range(SEEDS):
        for allocator in ALLOCATORS:
            yield f"{allocator}_seed{seed}", partial(row, allocator, seed)


def main() -> None:
    """Fill the rows."""
    where = arguments(__doc__, "benchmarks/results/searchers").parse_args()
    torch.set_num_threads(1)
    fill(where.out, rows(), where.only)


if __name__ == "__main__":
    main()
