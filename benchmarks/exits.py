"""Exits of the published CIFAR-10 networks: how good each is, who leaves there, and the measured latency of stopping.

    python benchmarks/exits.py --data CIFAR_FOLDER --models MODELS_FOLDER --out benchmarks/results/exits

The folders are those of ``hardware.py``. Rows ``*_exits_drop*`` train exits behind the stages of a network and choose
their thresholds on 5,000 pictures cut from train, at the accuracy of the network's own end or one point below it; rows
``*_pruned_exits`` do so to a network cut to 0.6 of its latency before. Rows ``*_plain`` and ``*_self_distillation``
train a network as long without exits and with exits that go afterwards: what exits bring a network that does not keep
them. The published networks have seen the validation pictures in their own training and are surer of them than of
others, so that thresholds come out careful. ``--epochs`` and ``--pictures`` make short rows; their names say so. A row
that is done is skipped, one that was killed goes on, ``--only`` picks rows by a part of their name. The test set is
read once by each run, and once more for the accuracy of each exit, by which nothing is chosen.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from hardware import CALIBRATION, RESNET56, Network
from penjing import api
from penjing.data import Data
from penjing.exporting import bundle
from penjing.exporting.early import left_at
from penjing.graph.exits import Exiting
from penjing.publish import RESULTS, read_results
from penjing.steps.exits import exits, listen
from penjing.steps.prune import prune
from penjing.steps.recalibrate import recalibrate
from penjing.steps.reconstruct import reconstruct
from penjing.steps.train import train
from rows import Row, answer, arguments, scale, short

EPOCHS, LR = 20, 0.01
RESNET20 = Network("resnet20", "resnet20_cifar10.safetensors", RESNET56.normal, ("soft_targets", "hints"))
NETWORKS = (RESNET20, RESNET56)


def pictures(network: Network, where: argparse.Namespace) -> Data:
    """Return the data, with as many training pictures as the row may have."""
    return short(network.data(where, 0), where.pictures, 0)


def row(
    network: Network, steps: Sequence[Any], budget: str | None, name: str, where: argparse.Namespace
) -> dict[str, Any]:
    """Take the steps, export, and tell what came of it."""
    data, folder = pictures(network, where), where.out / "runs" / name
    original = network.build(where)
    if not (folder / RESULTS).exists():
        api.run(original, data, [*steps, "export"], budget, folder=folder, threads=1, batch=1)
    results = read_results(folder)
    model = bundle.load(folder, lambda: original)
    before, after = results["rows"][:2]
    facts = {
        "network": network.name,
        "epochs": where.epochs,
        "train pictures": len(data.train),
        "original accuracy": before["accuracy"],
        "accuracy": after["accuracy"],
        "validation": results["validation"],
        "speed-up": after["ratio"],
        "latency": after["latency"],
        "original latency": before["latency"],
        "macs": after["macs"] / before["macs"],
        "params": after["params"] / before["params"],
        "exits": results["exits"],
        "test": tested(model, data),
        "seconds": {stage["name"]: stage["seconds"] for stage in results["stages"]},
        "remarks": results["remarks"],
        "test reads": results["test_reads"] + isinstance(model, Exiting),
    }
    shutil.rmtree(folder)
    return facts


def tested(model: nn.Module, data: Data) -> dict[str, Any]:
    """Return what each exit that was kept says of the test pictures, and how many leave there."""
    if not isinstance(model, Exiting):
        return {}
    told = listen(model, replace(data, val=data.test))
    at = left_at(model, data.test)
    shares = [float((at == k).mean()) for k in range(len(model.exits) + 1)]
    exits = [
        {"layer": layer, "accuracy": accuracy, "share": share}
        for layer, accuracy, share in zip((*model.places, "end"), told.accuracies, shares, strict=True)
    ]
    return {"exits": exits, "together": told.together}


def rows(where: argparse.Namespace) -> Iterator[Row]:
    """Name every row and say how it is made."""
    how: dict[str, Any] = {"epochs": where.epochs, "lr": LR}
    long = scale(where, where.epochs)
    for network in NETWORKS:
        terms = network.terms
        cut = [prune(images=CALIBRATION), reconstruct(), recalibrate(), train(**how, terms=terms)]
        courses: dict[str, tuple[list[Any], str | None]] = {
            "exits_drop0": ([exits(**how, terms=terms)], None),
            "exits_drop1": ([exits(**how, terms=terms, drop=1.0)], None),
            "plain": ([train(**how, terms=terms)], None),
            "self_distillation": ([train(**how, terms=(*terms, "self_distillation"))], None),
            "pruned": (cut, "latency=0.6x"),
            "pruned_exits": ([*cut[:-1], exits(**how, terms=terms)], "latency=0.6x"),
        }
        for course, (steps, budget) in courses.items():
            name = f"{network.name}_{course}_{long}"
            yield name, partial(row, network, steps, budget, name, where)


def main() -> None:
    """Fill the rows, or name them."""
    parser = arguments(__doc__, "benchmarks/results/exits")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    answer(parser, rows, "data", "models")


if __name__ == "__main__":
    main()
