r"""One plan of channels, ranks and bits against each of them alone and in pairs, under the same budgets.

    python benchmarks/joint.py --out benchmarks/results/joint
    python benchmarks/joint.py --data CIFAR_FOLDER --models MODELS_FOLDER --only resnet20

Rows of the digits need nothing but this repository and a minute each; with both folders, those of ``hardware.py``,
there are rows of ResNet-20 as well. Every row has the same solver with as many trials, the same pictures and the same
training. First and last layer stay in floats. Accuracies are of validation, before training and after: no row reads
test. What no plan reaches is told as such. ``--show`` prints the table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewbits import RESNET20, pictures
from penjing import targets, zoo
from penjing.core.errors import Infeasible
from penjing.data import Data, digits
from penjing.graph.trace import plain
from penjing.steps.original import original_of
from penjing.steps.prune import prune
from penjing.steps.recalibrate import recalibrate
from penjing.steps.state import Run, State
from penjing.steps.train import train
from penjing.training.evaluate import evaluate
from rows import Row, arguments, fill

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "channels": ("channels",),
    "ranks": ("svd_spatial",),
    "bits": ("lsq",),
    "channels_ranks": ("channels", "svd_spatial"),
    "channels_bits": ("channels", "lsq"),
    "ranks_bits": ("svd_spatial", "lsq"),
    "joint": ("channels", "svd_spatial", "lsq"),
}

BUDGETS: Mapping[str, tuple[str, str]] = {
    "size0.06x_macs0.5x": ("size=0.06x,macs=0.5x", "onnxruntime"),
    "energy0.3x": ("energy=0.3x", "edge_tpu_like"),
    "size0.06x_latency0.6x": ("size=0.06x,latency=0.6x", "onnxruntime"),
    "size0.02x_macs0.25x": ("size=0.02x,macs=0.25x", "onnxruntime"),
}
"""What is bounded, and on which target."""

TRIALS = 64
"""Plans that the solver of a row may measure."""

CALIBRATION = 512


def row(network: str, family: str, budget: str, where: argparse.Namespace) -> dict[str, Any]:
    """Cut, recalibrate and train one network; return the row."""
    model, data, rate = made(network, where)
    bounds, target = BUDGETS[budget]
    told = {"network": network, "family": family, "budget": bounds, "target": target, "trials": TRIALS,
            "epochs": where.epochs, "lr": rate, "validation pictures": len(data.val)}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), budget=dict(part.split("=") for part in bounds.split(",")), target=targets.find(target))
        state = State(model, model, data, ((data.example(2),), {}))
        try:
            return told | measured(state, run, FAMILIES[family], where.epochs, rate)
        except Infeasible as error:
            return told | {"infeasible": str(error)}
        finally:
            run.close()


def made(network: str, where: argparse.Namespace) -> tuple[nn.Module, Data, float]:
    """Return the trained network, its data, and the rate that it trains on at."""
    if network == "digits":
        return plain(zoo.digits_net(pretrained=True)).eval(), digits(), 0.01
    return plain(RESNET20.build(where)).eval(), pictures(RESNET20, where, 0), 0.01


def measured(state: State, run: Run, rewrites: tuple[str, ...], epochs: int, rate: float) -> dict[str, Any]:
    """Return what a row says of the network that its plan makes.

    Raises: Infeasible where no plan keeps the budget.
    """
    data = state.data_for("joint")
    judged = {"divergence": {"images": 512, "recalibrate": 1, "batch": 128}}
    start = time.process_time()
    cut = prune(rewrite=rewrites, allocator={"knapsack": {"trials": TRIALS}}, measure=judged, images=CALIBRATION)
    found, pricer = cut.decide(state, run)
    state = state.with_model(found.model, found.plan)
    seconds = time.process_time() - start
    state = recalibrate(images=CALIBRATION)(state, run)
    before = evaluate(state.model, data.val).accuracy
    trained = train(epochs=epochs, lr=rate, terms=("soft_targets",))(state, run)
    after = evaluate(trained.model, data.val).accuracy
    original, searches = original_of(state, run), run.noted("searches")
    costs = dict(pricer(found.plan)) | dict(found.measured)
    return {
        "original": evaluate(state.original, data.val).accuracy,
        "before training": before,
        "after training": after,
        "validation divergence": searches[-1]["best"] if searches else None,
        "costs": {cost: value / original.cost(cost) for cost, value in costs.items()},
        "sites": {s["site"]: [s["before"], s["after"]] for s in run.noted("sites") if s["before"] != s["after"]},
        "losses": [one for search in searches for one in search.get("losses", [])],
        "search seconds of processor": round(seconds, 1),
        "test reads": data.test_reads,
    }


def rows(where: argparse.Namespace) -> Iterator[Row]:
    """Name every row and say how it is made."""
    networks = ["digits", *(["resnet20"] if where.data and where.models else [])]
    for network in networks:
        for budget in BUDGETS:
            for family in FAMILIES:
                yield f"{network}_{budget}_{family}", partial(row, network, family, budget, where)


def table(out: Path) -> str:
    """Return the rows that are done as a table."""
    lines = ["| network, budget | plan of | before training | after | divergence |", "|---|---|---|---|---|"]
    for path in sorted(out.glob("*.json")):
        one = json.loads(path.read_text())
        numbers = ["before training", "after training", "validation divergence"]
        told = " | ".join(f"{one[n]:.4g}" for n in numbers) if "after training" in one else "not reached | | "
        lines.append(f"| {one['network']}, {one['budget']} | {one['family']} | {told} |")
    return "\n".join(lines)


def main() -> None:
    """Fill the rows, or show them."""
    parser = arguments(__doc__, "benchmarks/results/joint")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--pictures", type=int, help="training pictures of ResNet-20's rows, fewer than all")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--show", action="store_true")
    where = parser.parse_args()
    torch.set_num_threads(1)
    print(table(where.out)) if where.show else fill(where.out, rows(where), where.only)


if __name__ == "__main__":
    main()
