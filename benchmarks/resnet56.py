"""ResNet-56 on CIFAR-10 under budgets: the three real runs of the README's tables.

    python benchmarks/resnet56.py --data CIFAR_FOLDER --weights resnet56_cifar10.safetensors --out benchmarks/results

The data folder holds train.npz and test.npz (x: uint8 [N, 32, 32, 3], y). Choices were made on validation pictures cut
from train; each row reads the test set once, in its last step. A row that is done is skipped; ``--only`` picks rows by
a part of their name.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from penjing import api, zoo
from penjing.data import load
from penjing.steps.prune import prune
from penjing.steps.recalibrate import recalibrate
from penjing.steps.reconstruct import reconstruct
from penjing.steps.train import train
from rows import main

NORMAL = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CALIBRATION = 1024
LR, MIXUP, HINTS = 0.005, 1.0, 200.0
"""Chosen by choose_resnet56.py."""

TAUGHT = ("soft_targets", {"hints": {"weight": HINTS}})
STAGES = {0.2: (0.5, 0.3, 0.2), 0.1: (0.4, 0.2, 0.1)}
"""Shares of weights left after each stage of a cut."""


def channels(
    epochs: int, budget: str, seed: int, where: argparse.Namespace, refit: bool = True, terms: tuple[Any, ...] = TAUGHT
) -> dict[str, Any]:
    """Cut channels to a budget, recover without training and then with it."""
    steps: list[Any] = [prune(images=CALIBRATION), *recovery(epochs, refit, terms)]
    return run(steps, budget, epochs, seed, where)


def weights(epochs: int, keep: float, seed: int, where: argparse.Namespace) -> dict[str, Any]:
    """Zero single weights in stages, each refitted before the next; recover without and then with training."""
    steps: list[Any] = []
    for share in STAGES[keep]:
        budget = {"nonzero": f"{share}x"}
        whole = {"global": {"floor": 0.0}}
        cut = prune(rewrite="weights", criterion="l1", normalise=False, allocator=whole, budget=budget)
        steps += [cut, reconstruct(images=CALIBRATION)]
    return run(
        [*steps, *recovery(epochs, refit=False, terms=("soft_targets",))], f"nonzero={keep}x", epochs, seed, where
    )


def recovery(epochs: int, refit: bool, terms: tuple[Any, ...] = TAUGHT) -> list[Any]:
    """Return the steps after a cut."""
    steps: list[Any] = [reconstruct(images=CALIBRATION)] if refit else []
    steps.append(recalibrate(images=CALIBRATION))
    if epochs:
        steps.append(train(epochs=epochs, lr=LR, mixup=MIXUP, terms=terms))
    return steps


def run(steps: list[Any], budget: str, epochs: int, seed: int, where: argparse.Namespace) -> dict[str, Any]:
    """Run the steps and return the row."""
    model = zoo.build("resnet56", where.weights)
    data = load(where.data, seed=seed, val=5000, **NORMAL)
    result = api.run(model, data, [*steps, "export", "check"], budget, seed=seed, threads=1, batch=1).results
    original, ours = result["rows"][:2]
    return {
        "budget": budget,
        "seed": seed,
        "epochs": epochs,
        "training": result["trained"],
        "train pictures": len(data.train) if epochs else 0,
        "calibration pictures": CALIBRATION,
        "accuracy": ours["accuracy"],
        "original accuracy": original["accuracy"],
        "validation": result["validation"],
        "macs": ours["macs"] / original["macs"],
        "params": ours["params"] / original["params"],
        "nonzero": ours["nonzero"] / original["params"],
        "speed-up": ours["ratio"],
        "latency": ours["latency"],
        "original latency": original["latency"],
        "budget met": result["budget"],
        "rounds": result["rounds"],
        "widths": {s["site"]: [s["before"], s["after"]] for s in result["sites"]},
        "test reads": result["test_reads"],
    }


def rows(where: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name every row and say how it is made."""
    half = partial(channels, budget="macs=0.5x", where=where)
    for seed in (0, 1):
        yield f"channels_macs0.5x_recalibrated_seed{seed}", partial(half, 0, seed=seed, refit=False)
        for epochs in (0, 2, 12):
            yield f"channels_macs0.5x_{epochs}epochs_seed{seed}", partial(half, epochs, seed=seed)
        for epochs in (2, 12):
            alone = partial(half, epochs, seed=seed, terms=("soft_targets",))
            yield f"channels_macs0.5x_{epochs}epochs_nohints_seed{seed}", alone
    for epochs in (0, 2):
        yield f"channels_latency0.75x_{epochs}epochs_seed0", partial(channels, epochs, "latency=0.75x", 0, where)
    for seed in (0, 1):
        for keep in (0.2, 0.1):
            for epochs in (0, 5):
                yield f"weights_{keep}_{epochs}epochs_seed{seed}", partial(weights, epochs, keep, seed, where)


if __name__ == "__main__":
    main(__doc__, "benchmarks/results", rows, "data", "weights")
