r"""Light architectures at equal cost: the largest of each family that a budget allows, trained alike, side by side.

    python benchmarks/families.py --data CIFAR_FOLDER --out benchmarks/results/families

The data folder holds train.npz and test.npz (x: uint8 [N, 32, 32, 3], y). Budgets are shares of what ResNet-20 costs,
with a twentieth of slack: latency as measured on ONNX Runtime, or energy as the model of ``edge_tpu_like`` tells.
``penjing.new`` finds the member, which trains from new weights for as many epochs as all others, without a teacher; in
the end its file is timed in turns with ResNet-20's. A family whose smallest member costs too much has a row that says
so.

``--epochs`` and ``--pictures`` make short rows; their names and ``length`` say so. A row that is done is skipped, one
that was killed goes on; ``--only`` picks rows by a part of their name, ``--list`` names them, ``--show`` prints the
tables in Markdown, ``--plot FILE`` draws them. A row reads the test set once, in its last step.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from families_show import drawn, tables
from fewbits_show import read
from papers.learn import learned
from penjing import new, targets, zoo
from penjing.core.errors import Infeasible
from penjing.core.files import write_whole
from penjing.data import load as pictures_of
from penjing.exporting.measure import measure, ratio
from penjing.exporting.onnx import export_onnx
from penjing.largest import Yard
from penjing.steps.original import counted, drafted, estimated
from penjing.training.evaluate import evaluate
from penjing.training.recalibrate import recalibrate
from rows import Row, answer, arguments, scale, short

SIZE = (3, 32, 32)
"""Of the pictures."""

REFERENCE = "resnet20"
"""What costs are shares of."""

FAMILIES = (
    REFERENCE, "vgg11_bn", "nin_cifar", "densenet_cifar(depth=40)", "squeezenet1_1_cifar", "mobilenet_v1_cifar",
    "mobilenet_v2_cifar", "shufflenet_v1_cifar", "shufflenet_v2_cifar", "shiftnet20_cifar", "xception_cifar",
)  # fmt: skip
"""Architectures that have widths to choose from."""

EPOCHS, LR = 30, 0.05
CALM = {"nin_cifar": 0.01}
"""Learning rates of networks without batch norm, which do not stand the usual one."""

CALIBRATION = 1024
"""Pictures by which batch norm's statistics are taken anew after training."""

CHOICE = "choice.json"

COSTS = {"onnxruntime": ("latency", "ms", (0.5, 1.0, 2.0)), "edge_tpu_like": ("energy", "mJ", (1.0, 2.5, 6.0))}
"""What is equal on each target, its unit, and the shares of what the reference costs; the largest leaves none out."""

SLACK = 1.05
"""Of a budget, so that the reference itself meets what it costs."""


def row(family: str, target: str, share: float, name: str, seed: int, where: argparse.Namespace) -> dict[str, Any]:
    """Find the member, train it and time it; return the row."""
    cost, unit, _ = COSTS[target]
    how: dict[str, Any] = {"target": target, "threads": where.threads, "batch": 1, "picture": SIZE, "classes": 10}
    told = {"family": family.partition("(")[0], "target": target, "cost": cost, "share": share, "seed": seed}
    folder = where.out / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / CHOICE).exists():  # what was chosen by measured latency is chosen once
        whole = new(REFERENCE, f"{cost}=1000{unit}", widths=[1.0], **how).chosen.cost(cost)
        bound = {"reference": whole, "limit": SLACK * share * whole}
        try:
            found = new(family, f"{cost}={bound['limit']}{unit}", **how).model
        except Infeasible as error:
            return {**told, **bound, "model": None, "smallest": error.best[cost], "why": str(error)}
        write_whole(folder / CHOICE, json.dumps({**bound, "model": found}).encode())
    chosen = json.loads((folder / CHOICE).read_text())
    data = short(pictures_of(where.data, seed=seed, val=5000), where.pictures, seed)
    model = zoo.build(chosen["model"], seed=seed)
    training = learned(model, data, where.epochs, CALM.get(told["family"], LR), seed, folder / "training")
    recalibrate(model, data.calibration(CALIBRATION, seed))
    facts = {
        **told, **chosen, "training": training,
        "length": "full" if where.pictures is None and where.epochs >= EPOCHS else "short",
        **costs(model, where),
        "validation": evaluate(model, data.val).accuracy,
        "accuracy": evaluate(model, data.test).accuracy,
        "test reads": 1,
    }  # fmt: skip
    shutil.rmtree(folder)
    return facts


def costs(model: nn.Module, where: argparse.Namespace) -> dict[str, Any]:
    """Return what a network costs: by arithmetic, by the models of hardware, and timed in turns with the reference."""
    networks = {"reference": zoo.build(REFERENCE, seed=0), "model": model}
    example = Yard.example(SIZE)
    with tempfile.TemporaryDirectory() as scratch:
        files = {name: export_onnx(one.eval(), *example, Path(scratch) / f"{name}.onnx")
                 for name, one in networks.items()}  # fmt: skip
        timings = measure(files, threads=where.threads, batch=1)
        size = files["model"].stat().st_size
    draft = drafted(model, example)
    hardware = {name: estimated(draft, targets.find(name)) for name, (_, unit, _) in COSTS.items() if unit != "ms"}
    return {
        **{name: value for name, value in counted(draft).items() if name in ("params", "macs")},
        "size": size,
        "latency": asdict(timings["model"]),
        "reference latency": asdict(timings["reference"]),
        "times as long": asdict(ratio(timings["model"], timings["reference"])),
        "hardware": hardware,
    }


def rows(where: argparse.Namespace) -> Iterator[Row]:
    """Name every row and say how it is made."""
    for target, (cost, _, shares) in COSTS.items():
        for share in shares:
            for family in FAMILIES:
                for seed in where.seeds:
                    name = (
                        f"{target}_{cost}{share:g}x_{family.partition('(')[0]}_{scale(where, where.epochs)}_seed{seed}"
                    )
                    yield name, partial(row, family, target, share, name, seed, where)


def main() -> None:
    """Fill the rows, name them, show or draw them."""
    parser = arguments(__doc__, "benchmarks/results/families")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    answer(parser, rows, "data", tables=lambda out: tables(read(out)), drawn=lambda out: drawn(read(out)))


if __name__ == "__main__":
    main()
