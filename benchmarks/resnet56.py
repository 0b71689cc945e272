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
from pathlib import Path
from typing import Any

import torch

from penjing import api, zoo
from penjing.data import load
from penjing.steps.prune import prune
from penjing.steps.recover import recalibrate, reconstruct, train
from rows import fill

NORMAL = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CALIBRATION = 1024
MIXUP = 1.0
STAGES = {0.2: (0.5, 0.3, 0.2), 0.1: (0.4, 0.2, 0.1)}
"""Shares of weights left after each stage of a cut."""


def channels(
    epochs: int, budget: str, seed: int, lr: float, where: argparse.Namespace, **options: Any
) -> dict[str, Any]:
    """Cut channels to a budget, recover without and then with training."""
    steps: list[Any] = [prune(images=CALIBRATION, **options), *recovery(epochs, lr)]
    return run(steps, budget, epochs, seed, where)


def weights(epochs: int, keep: float, seed: int, lr: float, where: argparse.Namespace) -> dict[str, Any]:
    """Zero single weights in stages, each refitted before the next; recover without and then with training."""
    steps: list[Any] = []
    for share in STAGES[keep]:
        budget = {"nonzero": f"{share}x"}
        whole = {"global": {"floor": 0.0}}
        cut = prune(rewrite="weights", criterion="l1", normalise=False, allocator=whole, budget=budget)
        steps += [cut, reconstruct(images=CALIBRATION)]
    training = [train(epochs=epochs, lr=lr, mixup=MIXUP)] if epochs else []
    steps = [*steps, recalibrate(images=CALIBRATION), *training]
    return run(steps, f"nonzero={keep}x", epochs, seed, where)


def recovery(epochs: int, lr: float) -> list[Any]:
    """Return the steps after a cut."""
    closed: list[Any] = [reconstruct(images=CALIBRATION), recalibrate(images=CALIBRATION)]
    return [*closed, train(epochs=epochs, lr=lr, mixup=MIXUP)] if epochs else closed


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
    for seed in (0, 1):
        for epochs in (0, 2, 12):
            lr = 0.005
            yield (
                f"channels_macs0.5x_{epochs}epochs_seed{seed}",
                partial(channels, epochs, "macs=0.5x", seed, lr, where),
            )
    for epochs in (0, 2):
        yield f"channels_latency0.75x_{epochs}epochs_seed0", partial(channels, epochs, "latency=0.75x", 0, 0.005, where)
    for seed in (0, 1):
        for keep in (0.2, 0.1):
            for epochs in (0, 5):
                yield f"weights_{keep}_{epochs}epochs_seed{seed}", partial(weights, epochs, keep, seed, 0.005, where)


def main() -> None:
    """Fill the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--only", default="", help="run rows whose name contains this")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    where = parser.parse_args()
    torch.set_num_threads(where.threads)
    fill(where.out, rows(where), where.only)


if __name__ == "__main__":
    main()
