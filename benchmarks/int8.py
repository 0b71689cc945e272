"""Int8 files beside those in floats: accuracy on validation pictures, size and latency.

    python benchmarks/int8.py --data CIFAR10 --weights FOLDER --out benchmarks/results/int8

A row a network and a way to calibrate. ``pruned`` and ``factored`` networks are ResNet-20 at 0.5x of its MACs,
recovered without training. FOLDER holds resnet20_cifar10.safetensors and vgg16_bn_cifar10.safetensors. The test split
is not read.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from penjing import zoo
from penjing.core.registry import build
from penjing.data import load
from penjing.exporting.evaluate_file import FileModule
from penjing.exporting.measure import measure, ratio
from penjing.exporting.session import file_bytes
from penjing.steps.state import Run, State
from penjing.training.evaluate import evaluate
from rows import Row
from rows import main as rows_main

NORMALS = {
    "resnet20": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    "vgg16_bn": {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)},
}
RECOVERED = ["reconstruct", "recalibrate"]
SMALLER: dict[str, list[Any]] = {
    "dense": [],
    "pruned": [{"prune": {"criterion": "l1", "allocator": "uniform"}}, *RECOVERED],
    "factored": [
        {"factorize": {"rewrite": "svd_responses", "allocator": {"knapsack": {"loss": "scores"}}}},
        *RECOVERED,
    ],
}
WAYS: dict[str, dict[str, Any]] = {
    "mse": {}, "minmax": {"calibration": "minmax"}, "percentile": {"calibration": "percentile"},
    "entropy": {"calibration": "entropy"}, "uncorrected": {"correct_bias": False}, "seven": {"reduce_range": True},
    "128": {"images": 128}, "trained": {"epochs": 1},
}  # fmt: skip
"""The options of the step int8 by the name of the row."""


def row(network: str, smaller: str, way: str, where: argparse.Namespace) -> dict[str, Any]:
    """Write both files and tell how good, large and fast they are."""
    data = load(where.data, seed=0, val=5000, **NORMALS[network])  # type: ignore[arg-type]
    model = zoo.build(network, where.weights / f"{network}_cifar10.safetensors").eval()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), {"macs": "0.5x"})
        state = State(model, model, data, ((data.example(2),), {}))
        for step in SMALLER[smaller]:
            state = build("step", step)(state, run)
        files = {}
        for name, steps in (("float", ["export"]), ("int8", [{"int8": WAYS[way]}, {"export": {"file": "int8.onnx"}}])):
            for step in steps:
                state = build("step", step)(state, run)
            files[name] = next(reversed(list(state.files.values())))
        times = measure(files)
        found: dict[str, Any] = {name: _told(files[name], FileModule(files[name]), data) for name in files}
    facts = run.noted("int8")[-1]
    found["faster"] = asdict(ratio(times["float"], times["int8"]))
    lost = found["float"]["accuracy"] - found["int8"]["accuracy"]
    return {"network": network, "smaller": smaller, "way": way, "lost": lost, "sqnr": facts["sqnr"], **found}


def _told(file: Path, model: nn.Module, data: Any) -> dict[str, float]:
    return {"accuracy": evaluate(model, data.val).accuracy, "bytes": file_bytes(file)}


def rows(where: argparse.Namespace) -> Iterator[Row]:
    """Name the rows."""
    for way in WAYS:
        yield f"resnet20-dense-{way}", partial(row, "resnet20", "dense", way, where)
    for smaller in ("pruned", "factored"):
        yield f"resnet20-{smaller}-mse", partial(row, "resnet20", smaller, "mse", where)
    yield "vgg16_bn-dense-mse", partial(row, "vgg16_bn", "dense", "mse", where)


if __name__ == "__main__":
    rows_main(__doc__, "benchmarks/results/int8", rows, "data", "weights")
