"""Layers as blocks of light architectures, beside channels that are pruned, on ResNet-56 and VGG-16 for CIFAR-10.

    python benchmarks/lighten.py --data CIFAR_FOLDER --models MODELS_FOLDER --out benchmarks/results/lighten

The folders are those of ``hardware.py``. ``PLANS`` say what may change; each is chosen by the exact solver under a
budget (latency as measured on ONNX Runtime, MACs, or what a model of hardware tells), refitted, and trained for the
epochs of the row with the original as its teacher (``--epochs``, on ``--pictures`` of the training pictures). Rows of
the kind ``families`` say only which family each layer takes on a target, without training. A row that is done is
skipped; ``--only`` picks rows by a part of their name.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from hardware import CALIBRATION, RESNET56, VGG16, Network, told
from penjing import api
from penjing.rewrites.lighten import FAMILIES
from penjing.steps.lighten import lighten
from penjing.steps.prune import prune
from rows import answer, arguments, scale, short

SOLVER = {"knapsack": {"loss": "scores"}}

PLANS: Mapping[str, Sequence[Any]] = {
    "channels": [prune(allocator=SOLVER, images=CALIBRATION)],
    "light": [lighten(images=CALIBRATION)],
    "all": [lighten(families=tuple(FAMILIES), images=CALIBRATION)],
    "beside": [lighten(rewrite=("channels",), images=CALIBRATION)],
    **{name: [lighten(families=(name,), images=CALIBRATION)] for name in FAMILIES},
}
"""What may change, by the name of the rows: all families beside ranks, light ones beside channels, one alone."""

TARGETS = (("onnxruntime", "latency=0.7x"), ("edge_tpu_like", "latency=0.7x"), ("eyeriss_v1", "latency=0.7x"))
"""Where it is asked which family a layer takes."""


def row(
    network: Network, plan: str, target: str, budget: str, epochs: int, seed: int, where: argparse.Namespace
) -> dict[str, Any]:
    """Choose, recover, train, export and measure; return the row."""
    data = short(network.data(where, seed), where.pictures, seed)
    steps = [*PLANS[plan], *network.recovery(epochs)]
    result = api.run(network.build(where), data, steps, budget, seed=seed, target=target).results
    lightened = result["lightened"]
    return {
        "budget": budget,
        "on": target,
        "plan": plan,
        "seed": seed,
        "epochs": epochs,
        "train pictures": len(data.train),
        **told(result),
        "families": dict(Counter(one["family"] or "whole" for one in lightened)),
        "layers": {one["layer"]: [one["family"], one["ranks"], one["error"]] for one in lightened},
    }


def rows(where: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name every row and say how it is made."""
    for epochs in dict.fromkeys((0, where.epochs)):
        for network in (RESNET56, VGG16):
            for plan in PLANS:
                for budget in ("latency=0.7x", "macs=0.5x"):
                    length = scale(where, epochs) if epochs else "0epochs"
                    name = f"{network.name}_{budget.replace('=', '')}_{plan}_{length}_seed{where.seed}"
                    yield name, partial(row, network, plan, "onnxruntime", budget, epochs, where.seed, where)
    for network in (RESNET56, VGG16):
        for plan in ("light", "all"):
            for target, budget in TARGETS:
                name = f"{network.name}_families_{target}_{plan}_seed{where.seed}"
                yield name, partial(row, network, plan, target, budget, 0, where.seed, where)


if __name__ == "__main__":
    parser = arguments(__doc__, "benchmarks/results/lighten")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    answer(parser, rows, "data", "models")
