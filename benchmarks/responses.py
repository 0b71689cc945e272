"""What pictures add to low rank: the digits network in chains at 0.2x and 0.1x of its MACs, without training.

    python benchmarks/responses.py --out benchmarks/results/responses
    python benchmarks/responses.py --data CIFAR_FOLDER --models MODELS_FOLDER --only resnet20

A row a budget, a rewrite (svd looks at weights, svd_responses at what layers write, svd_asymmetric also at what chains
before them make of it, svd_nonlinear at what a ReLU leaves of that) and a seed, which draws the calibration pictures:
the divergence from the original on validation, with batch norm recalibrated, before and after the step reconstruct has
refitted the last stages. The test split is not read. With the folders of ``hardware.py``, the same of ResNet-20 at half
its MACs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lowrank_claims import RESNET20
from penjing.core.registry import build
from penjing.costs.divergence import divergence
from penjing.data import digits
from penjing.steps.original import drafted
from penjing.steps.state import Run, State
from penjing.training.evaluate import evaluate
from penjing.zoo.digits import trained
from rows import arguments, fill

BUDGETS, REWRITES, SEEDS = ("0.2x", "0.1x"), ("svd", "svd_responses", "svd_asymmetric", "svd_nonlinear"), range(3)

SOLVER = {"knapsack": {"loss": "scores"}}


def row(where: Any, budget: str, rewrite: str, seed: int, allocator: Any) -> dict[str, Any]:
    """Factorise the network and tell how far it is from the original, with and without a refit."""
    data = digits() if where is None else RESNET20.data(where, 0)
    model = (trained() if where is None else RESNET20.build(where)).eval()
    example = ((data.example(2),), {})
    apart = divergence(recalibrate=2).on(data, seed).beside(model)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), {"macs": budget}, seed=seed)
        chains = build("step", {"factorize": {"rewrite": rewrite, "allocator": allocator, "images": 1024}})(
            State(model, model, data, example), run
        )
        found = {}
        for name, steps in (("plain", ["recalibrate"]), ("reconstruct", ["reconstruct", "recalibrate"])):
            state = chains
            for step in steps:
                state = build("step", step)(state, run)
            found[name] = {
                "divergence": apart(drafted(state.model, example)),
                "error": evaluate(state.model, data.val).error,
            }
    return {"budget": budget, "rewrite": rewrite, "seed": seed, **found}


def rows(where: Any) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name the rows."""
    for budget in BUDGETS:
        for rewrite in REWRITES:
            for seed in SEEDS:
                name = f"{budget}-{rewrite}-{seed}"
                yield name, partial(row, None, budget, rewrite, seed, SOLVER)
                if seed == 0:
                    yield f"{name}-product", partial(row, None, budget, rewrite, seed, "eigenvalue_product")
    for rewrite in REWRITES if where.data and where.models else ():
        yield f"resnet20-0.5x-{rewrite}-0", partial(row, where, "0.5x", rewrite, 0, SOLVER)


def main() -> None:
    """Fill the rows."""
    parser = arguments(__doc__, "benchmarks/results/responses")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--models", type=Path)
    where = parser.parse_args()
    torch.set_num_threads(1)
    fill(where.out, rows(where), where.only)


if __name__ == "__main__":
    main()
