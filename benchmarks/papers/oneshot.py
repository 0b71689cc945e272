"""ResNet-56 as published, cut in one shot: 1,024 unlabelled pictures and no training."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from papers.row import outcome, run
from penjing import zoo
from penjing.core.errors import PlanError
from penjing.data import load

IMAGES = 1024
NORMAL = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SEEDS = (0, 1)
VALIDATION = 500
"""Nothing is chosen on these pictures, which the published network knows by heart."""

STAGES = {80: (0.5, 0.3, 0.2), 90: (0.4, 0.2, 0.1)}
"""Shares of weights left after each stage of a cut in stages."""


def _zeros(criterion: str, share: float) -> dict[str, Any]:
    cut = {"rewrite": "weights", "criterion": criterion, "allocator": {"global": {"floor": 0.0}}, "normalise": False}
    return {"prune": cut | {"images": IMAGES, "budget": {"nonzero": f"{share:.6g}x"}}}


REFIT, RECALIBRATE = {"reconstruct": {"images": IMAGES}}, {"recalibrate": {"images": IMAGES}}


def weights(how: str, removed: int) -> list[Any]:
    """Return the steps by which single weights go."""
    left = 1 - removed / 100
    budget = {"nonzero": f"{left:.6g}x"}
    recover = [REFIT, RECALIBRATE]
    return {
        "obc": [{"obc": {"images": IMAGES, "budget": budget}}, RECALIBRATE],
        "lamp": [_zeros("lamp", left), *recover],
        "magnitude": [_zeros("l1", left), *recover],
        "magnitude_recalibrated": [_zeros("l1", left), RECALIBRATE],
        "magnitude_staged": [step for share in STAGES[removed] for step in (_zeros("l1", share), REFIT)]
        + [RECALIBRATE],
    }[how]


def channels(how: str) -> list[Any]:
    """Return the steps by which channels go."""
    recover = [REFIT, RECALIBRATE]
    return {
        "penjing": [{"prune": {"images": IMAGES}}, *recover],
        "solver": [{"prune": {"images": IMAGES, "allocator": {"knapsack": {"loss": "scores"}}}}, *recover],
        "l1": [{"prune": {"criterion": "l1", "images": IMAGES, "allocator": "uniform"}}, *recover],
        "l1_recalibrated": [{"prune": {"criterion": "l1", "images": IMAGES, "allocator": "uniform"}}, RECALIBRATE],
        "fpgm": [{"prune": {"criterion": "fpgm", "images": IMAGES}}, *recover],
    }[how]


WEIGHTS = ("obc", "lamp", "magnitude", "magnitude_staged", "magnitude_recalibrated")
CHANNELS = ("penjing", "solver", "l1", "fpgm", "l1_recalibrated")


def row(kind: str, how: str, removed: int, seed: int, where: argparse.Namespace) -> dict[str, Any]:
    """Cut, recover without training, and return the row.

    Raises: PlanError when the command was not told where pictures or weights lie.
    """
    if where.models is None or where.data is None:
        raise PlanError("The one-shot rows need the published network and its pictures: give --models and --data.")
    network = zoo.build("resnet56", where.models / "resnet56_cifar10.safetensors")
    data = load(where.data, seed=seed, val=VALIDATION, **NORMAL)
    steps, budget = (
        (weights(how, removed), None) if kind == "weights" else (channels(how), f"macs={1 - removed / 100}x")
    )
    folder = Path(where.out) / "oneshot" / "runs" / f"{kind}_{how}_{removed}_seed{seed}"
    results, spent = run(folder, network, data, steps, budget, seed)
    return {
        "table": f"one-shot {kind}",
        "network": "resnet56, as published",
        "method": how,
        "asked": {"nonzero" if kind == "weights" else "macs": removed},
        "seed": seed,
        "epochs": 0,
        "calibration pictures": IMAGES,
        **outcome(results),
        **spent,
    }


def rows(where: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name every row and say how it is made."""
    for seed in SEEDS:
        for how in CHANNELS:
            yield f"channels_{how}_50_seed{seed}", partial(row, "channels", how, 50, seed, where)
        for removed in STAGES:
            for how in WEIGHTS:
                yield f"weights_{how}_{removed}_seed{seed}", partial(row, "weights", how, removed, seed, where)
