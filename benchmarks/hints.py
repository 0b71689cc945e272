r"""What teaches a network best all of whose layers were cut narrower: terms beside soft targets, after one cut.

    python benchmarks/hints.py --data CIFAR_FOLDER --models MODELS_FOLDER

The folders are those of ``hardware.py``. Each network is cut to half its MACs, the same share of every width, the
residual stream among them, refitted, and trained for three epochs on 4,000 pictures by each of the terms in turn. The
published networks know their validation pictures by heart, so rows also tell how often the cut network names the class
that the original names on validation pictures blended in pairs. No row reads test. ``--show`` prints the table.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from choose_resnet56 import following
from fewbits import RESNET20
from hardware import CALIBRATION, VGG16
from penjing.core.random import torch_stream
from penjing.graph.trace import plain
from penjing.steps.prune import prune
from penjing.steps.recalibrate import recalibrate
from penjing.steps.reconstruct import reconstruct
from penjing.steps.state import Run, State
from penjing.steps.train import train
from penjing.training.evaluate import evaluate
from rows import Row, answer, arguments, short

NETWORKS = {"resnet20": RESNET20, "vgg16_bn": VGG16}
PICTURES, EPOCHS, LR = 4000, 3, 0.005

TERMS: Mapping[str, tuple[Any, ...]] = {
    "soft_targets alone": (),
    "hints": ("hints",),
    "hints, weight 200": ({"hints": {"weight": 200.0}},),
    "fitnets": ("fitnets",),
    "attention_transfer": ("attention_transfer",),
}
"""What stands beside soft targets."""


def row(network: str, terms: str, where: argparse.Namespace) -> dict[str, Any]:
    """Cut, refit and train; return how well the network follows the original before and after."""
    original = plain(NETWORKS[network].build(where)).eval()
    data = short(NETWORKS[network].data(where, 0), where.pictures or PICTURES, 0)
    whole = torch.cat([x for x, _ in data.val.batches(500)])
    blended = (whole + whole[torch.randperm(len(whole), generator=torch_stream(0, "hints/partner"))]) / 2
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), {"macs": "0.5x"}, 0)
        state = State(copy.deepcopy(original), original, data, ((data.example(2),), {}))
        for step in (
            prune(criterion="l1", allocator="uniform"),
            reconstruct(images=CALIBRATION),
            recalibrate(images=CALIBRATION),
        ):
            state = step(state, run)
        before = following(original, state.model, blended)
        taught = train(epochs=EPOCHS, lr=LR, mixup=1.0, terms=("soft_targets", *TERMS[terms]))(state, run)
        run.close()
    return {
        "network": network, "terms": terms, "epochs": EPOCHS, "lr": LR, "train pictures": len(data.train),
        "validation pictures": len(data.val), "before": before, "after": following(original, taught.model, blended),
        "validation": evaluate(taught.model, data.val).accuracy, "test reads": data.test_reads,
    }  # fmt: skip


def rows(where: argparse.Namespace) -> Iterator[Row]:
    """Name every row and say how it is made."""
    for network in NETWORKS:
        for i, terms in enumerate(TERMS):
            yield f"{network}_{i}", partial(row, network, terms, where)


def table(out: Path) -> str:
    """Return the rows that are done as a table."""
    lines = [
        "| network | beside soft targets | follows the original: before | after | validation |",
        "|---|---|---|---|---|",
    ]
    for path in sorted(out.glob("*.json")):
        one = json.loads(path.read_text())
        told = f"{one['before']['alike']:.1f} % | {one['after']['alike']:.1f} % | {one['validation']:.1f} %"
        lines.append(f"| {one['network']} | {one['terms']} | {told} |")
    return "\n".join(lines)


if __name__ == "__main__":
    answer(arguments(__doc__, "benchmarks/results/hints"), rows, "data", "models", tables=table)
