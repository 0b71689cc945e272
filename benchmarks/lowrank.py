"""Low rank, channels, and both in one plan, on ResNet-56 and VGG-16 for CIFAR-10 at equal MACs and at equal latency.

    python benchmarks/lowrank.py --data CIFAR_FOLDER --models MODELS_FOLDER --out benchmarks/results/lowrank

The folders are those of ``hardware.py``. Rows say what chooses (``PLANS``), ``plain`` or ``refitted`` (every layer, or
last factor, in least squares on 1,024 unlabelled pictures), the budget, and the epochs of training after it. Every row
reads the test set once a network, in its last step; ``validation`` is on pictures cut from train. A row that is done is
skipped; ``--only`` picks rows by a part of their name.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from hardware import CALIBRATION, RESNET56, VGG16, Network, told
from penjing import api
from penjing.steps.factorize import factorize
from penjing.steps.merge import merge
from penjing.steps.prune import prune
from penjing.steps.rbp import rbp
from rows import main

RANKS = ("rank:*",)


def prf(*steps: Any, rewrite: str = "svd") -> list[Any]:
    """Return the steps of a rank pruning: full ranks, what prunes them, and chains merged that do not pay."""
    return [factorize(rewrite=rewrite, ranks="full"), *steps, merge()]


PLANS: Mapping[str, Sequence[Any]] = {
    "channels": [prune(images=CALIBRATION)],
    "svd": [factorize(rewrite="svd")],
    "svd_spatial": [factorize(rewrite="svd_spatial")],
    "svd_responses": [factorize(rewrite="svd_responses", images=CALIBRATION)],
    "svd_asymmetric": [factorize(rewrite="svd_asymmetric", images=CALIBRATION)],
    "svd_nonlinear": [factorize(rewrite="svd_nonlinear", images=CALIBRATION)],
    "svd_product": [factorize(rewrite="svd", allocator="eigenvalue_product")],
    "svd_spatial_product": [factorize(rewrite="svd_spatial", allocator="eigenvalue_product")],
    "tucker2": [factorize(rewrite="tucker2")],
    "cp": [factorize(rewrite="cp")],
    "btd": [factorize(rewrite="btd")],
    "depthwise_separable": [factorize(rewrite="depthwise_separable")],
    "prf_l2": prf(prune(criterion="l2", include=RANKS, images=CALIBRATION)),
    "prf_taylor": prf(prune(criterion="taylor", include=RANKS, images=CALIBRATION)),
    "prf_jacobian": prf(prune(include=RANKS, images=CALIBRATION)),
    "prf_spatial_jacobian": prf(prune(include=RANKS, images=CALIBRATION), rewrite="svd_spatial"),
    "prf_rbp": prf(rbp(include=RANKS)),
    "joint": prf(prune(images=CALIBRATION)),
    "joint_spatial": prf(prune(images=CALIBRATION), rewrite="svd_spatial"),
    "joint_solver": [prune(rewrite=("channels", "svd_spatial"), allocator="knapsack", images=CALIBRATION)],
}
"""What chooses, by the name of the rows; ``joint`` plans are of channels and ranks together."""


def row(
    network: Network, plan: str, budget: str, refit: bool, epochs: int, seed: int, where: argparse.Namespace
) -> dict[str, Any]:
    """Choose, recover, train, export and measure; return the row."""
    steps = [*PLANS[plan], *network.recovery(epochs, refit)]
    result = api.run(network.build(where), network.data(where, seed), steps, budget, seed=seed).results
    return {
        "budget": budget,
        "plan": plan,
        "refitted": refit,
        "seed": seed,
        "epochs": epochs,
        **told(result),
        "sites": {s["site"]: [s["before"], s["after"]] for s in result["sites"] if s["before"] != s["after"]},
        "whole": [note["where"] for note in result["pinned"] if "stays whole" in note["why"]],
    }


def rows(where: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name every row and say how it is made."""
    for epochs in (0, 2):
        for seed in (0, 1):
            for network, budgets in ((RESNET56, ("macs=0.5x", "latency=0.7x")), (VGG16, ("macs=0.5x", "latency=0.5x"))):
                for budget in budgets:
                    for plan in PLANS:
                        for refit in (True,) if epochs else (False, True):
                            how = "refitted" if refit else "plain"
                            name = f"{network.name}_{budget.replace('=', '')}_{plan}_{how}_{epochs}epochs_seed{seed}"
                            yield name, partial(row, network, plan, budget, refit, epochs, seed, where)


if __name__ == "__main__":
    main(__doc__, "benchmarks/results/lowrank", rows, "data", "models")
