"""Latency and hardware budgets on CIFAR-10: plans of the exact solver beside uniform ones and beside a MAC budget's.

    python benchmarks/hardware.py --data CIFAR_FOLDER --models MODELS_FOLDER --out benchmarks/results/hardware

The data folder holds train.npz and test.npz (x: uint8 [N, 32, 32, 3], y), the models folder the published weights as
``resnet56_cifar10.safetensors`` and ``vgg16_bn_cifar10.safetensors``. Every row reads the test set once a network, in
its last step; everything is chosen on validation pictures cut from train. The MAC budget of a row ``macs`` is sought so
that its network is as fast, as measured, as the latency budget asks. A row that is done is skipped; ``--only`` picks
rows by a part of their name.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from penjing import api, targets, zoo
from penjing.data import Data, load
from penjing.exporting.measure import ratio
from penjing.exporting.onnx import export_onnx
from penjing.exporting.runtimes.subject import Subject
from penjing.steps.original import original_of
from penjing.steps.prune import prune
from penjing.steps.recalibrate import recalibrate
from penjing.steps.reconstruct import reconstruct
from penjing.steps.state import Run, State
from penjing.steps.train import train
from rows import done, main

CALIBRATION = 1024
ROUNDS = 6
"""How often the range of MACs is halved when a share as fast as the latency budget is sought."""


@dataclass(frozen=True)
class Network:
    """A published network, how its pictures are normalised, and how its cuts are trained."""

    name: str
    weights: str
    normal: Mapping[str, tuple[float, ...]]
    terms: tuple[Any, ...]
    lr: float = 0.005
    mixup: float = 1.0

    def build(self, where: argparse.Namespace) -> torch.nn.Module:
        """Return it with its weights."""
        return zoo.build(self.name, where.models / self.weights)

    def data(self, where: argparse.Namespace, seed: int) -> Data:
        """Return CIFAR-10 with a validation split of 5,000 training pictures."""
        return load(where.data, seed=seed, val=5000, **self.normal)

    def recovery(self, epochs: int, refit: bool = True) -> list[Any]:
        """Return the steps that follow a cut: refit what is left, train it for so many epochs, export and check it."""
        steps: list[Any] = [reconstruct(images=CALIBRATION)] if refit else []
        steps.append(recalibrate(images=CALIBRATION))
        if epochs:
            steps.append(train(epochs=epochs, lr=self.lr, mixup=self.mixup, terms=self.terms))
        return [*steps, "export", "check"]


RESNET56 = Network(
    "resnet56",
    "resnet56_cifar10.safetensors",
    {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    ("soft_targets", {"hints": {"weight": 200.0}}),
)
VGG16 = Network(
    "vgg16_bn",
    "vgg16_bn_cifar10.safetensors",
    {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)},
    ("soft_targets", "hints"),
)

PLANS: Mapping[str, Mapping[str, Any]] = {
    "solver": {"allocator": {"knapsack": {"loss": "scores"}}},
    "sensitivity": {"allocator": "knapsack"},
    "blocks": {"allocator": {"knapsack": {"loss": "scores"}}, "rewrite": ("channels", "layers")},
    "greedy": {"allocator": "greedy"},
    "uniform": {"allocator": "uniform"},
}
"""What chooses widths under a budget, by the name of the rows."""


def row(
    network: Network, plan: str, budget: str, target: Any, epochs: int, seed: int, where: argparse.Namespace
) -> dict[str, Any]:
    """Cut, recover, train, export and measure; return the row."""
    if plan == "macs":
        share = as_fast(network, budget, seed, where)
        cut, bound = prune(images=CALIBRATION, allocator="greedy"), f"macs={share}x"
    else:
        cut, bound = prune(images=CALIBRATION, **PLANS[plan]), budget
    steps = [cut, *network.recovery(epochs)]
    result = api.run(network.build(where), network.data(where, seed), steps, bound, target=target, seed=seed).results
    return {
        "budget": bound,
        "asked": budget,
        "target": result["target"],
        "seed": seed,
        "epochs": epochs,
        **told(result),
        "searches": result["searches"],
        "widths": {s["site"]: [s["before"], s["after"]] for s in result["sites"]},
    }


def told(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return what every row says of a network that was cut, or factorised, and of the one that it came from."""
    original, ours = results["rows"][:2]
    keys = ("accuracy", "macs", "params", "size", "latency", "target")
    return {
        "original": {key: original[key] for key in keys},
        "penjing": {key: ours[key] for key in keys},
        "accuracy": ours["accuracy"],
        "validation": results["validation"],
        "macs": ours["macs"] / original["macs"],
        "params": ours["params"] / original["params"],
        "speed-up": ours["ratio"],
        "budget met": results["budget"],
        "rounds": results["rounds"],
        "seconds": {stage["name"]: stage["seconds"] for stage in results["stages"]},
        "test reads": results["test_reads"],
    }


def as_fast(network: Network, budget: str, seed: int, where: argparse.Namespace) -> float:
    """Return the largest share of MACs, sought by halving, at which a MAC budget's cut is as fast as asked.

    A row without training that is done has found it for all that train.
    """
    if done(known := where.out / f"{named(network, budget, 'macs', 0, seed)}.json"):
        return float(json.loads(known.read_text())["budget"].removeprefix("macs=").removesuffix("x"))
    wanted = float(budget.removeprefix("latency=").removesuffix("x"))
    model, data = network.build(where).eval(), network.data(where, seed)
    low, high = 0.02, 1.0
    with tempfile.TemporaryDirectory() as folder:
        state = State(model, model, data, ((data.example(2),), {}))
        for _ in range(ROUNDS):
            share = (low + high) / 2
            run = Run(Path(folder), {"macs": f"{share}x"}, seed)
            cut, _ = prune(images=CALIBRATION, allocator="greedy").decide(state, run)
            file = export_onnx(cut.model, *state.example, run.scratch / "cut.onnx", quick=True)
            files = {"original": original_of(state, run).subject, "cut": Subject(file, cut.model, state.example)}
            timings = run.measure("the cut", files)
            faster = ratio(timings["cut"], timings["original"]).median
            low, high = (share, high) if faster <= wanted else (low, share)
            run.close()
    return low


def named(network: Network, budget: str, plan: str, epochs: int, seed: int) -> str:
    """Return the name of a row under a latency budget."""
    return f"{network.name}_{budget.replace('=', '')}_{plan}_{epochs}epochs_seed{seed}"


def rows(where: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name every row and say how it is made."""
    for epochs in (0, 2):
        for seed in (0, 1):
            for network, budget, plans in (
                (RESNET56, "latency=0.7x", ("solver", "blocks", "sensitivity", "greedy", "uniform", "macs")),
                (VGG16, "latency=0.5x", ("solver", "sensitivity", "greedy", "uniform", "macs")),
            ):
                for plan in plans:
                    name = named(network, budget, plan, epochs, seed)
                    yield name, partial(row, network, plan, budget, None, epochs, seed, where)
    for epochs in (0, 2):
        for name, budget, target in (
            ("eyeriss", "energy=0.5x", "eyeriss_v1"),
            ("edge_tpu", "latency=0.75x", "edge_tpu_like"),
            ("m7_fp32", "sram=128kB,flash=512kB", targets.find("mcu_m7").at(precision="fp32")),
            ("m7_int8", "sram=128kB,flash=512kB", targets.find("mcu_m7").at(precision="int8")),
        ):
            yield f"resnet56_{name}_{epochs}epochs", partial(row, RESNET56, "solver", budget, target, epochs, 0, where)
    for share in (0.6, 0.5, 0.4, 0.3, 0.2, 0.1):
        for plan in ("solver", "blocks"):
            name = f"resnet56_low_latency{share}x_{plan}"
            yield name, partial(row, RESNET56, plan, f"latency={share}x", None, 0, 0, where)


if __name__ == "__main__":
    main(__doc__, "benchmarks/results/hardware", rows, "data", "models")
