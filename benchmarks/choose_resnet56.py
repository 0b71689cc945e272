"""Choose the learning rate, mixup and weight of hints of the ResNet-56 rows, without the test set.

    python benchmarks/choose_resnet56.py --data CIFAR_FOLDER --weights resnet56_cifar10.safetensors --out results

The published network has learned the validation pictures by heart, so accuracy on them favours training that hardly
moves. Each row therefore also tells how well the cut network follows the original on validation pictures blended in
pairs, half and half, which neither has seen: the mean KL divergence in nats, and how often both name one class.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penjing import zoo
from penjing.core.random import torch_stream
from penjing.data import load
from penjing.graph.trace import plain
from penjing.steps.prune import prune
from penjing.steps.recalibrate import recalibrate
from penjing.steps.reconstruct import reconstruct
from penjing.steps.state import Run, State
from penjing.steps.train import train
from penjing.training.evaluate import evaluate
from resnet56 import CALIBRATION, NORMAL
from rows import main

CHOICES = [
    *((2, lr, 0.0, 0.0) for lr in (0.002, 0.005, 0.01)),
    *((2, lr, 1.0, 0.0) for lr in (0.005, 0.01, 0.02)),
    *((12, lr, 1.0, 0.0) for lr in (0.005, 0.01, 0.02)),
    (2, 0.005, 1.0, 200.0),
]
"""Epochs, learning rate, mixup, weight of hints."""


@torch.no_grad()
def following(original: nn.Module, model: nn.Module, x: Tensor) -> dict[str, float]:
    """Return the mean KL divergence of the model's classes from the original's, and the share named alike, in %."""
    model.eval()
    divergence, alike = 0.0, 0
    for part in x.split(500):
        p, q = original(part).log_softmax(1), model(part).log_softmax(1)
        divergence += float((p.exp() * (p - q)).sum())
        alike += int((p.argmax(1) == q.argmax(1)).sum())
    return {"kl": divergence / len(x), "alike": 100 * alike / len(x)}


def row(epochs: int, lr: float, mixup: float, weight: float, where: argparse.Namespace) -> dict[str, Any]:
    """Cut to half the MACs, refit, train, and compare on validation."""
    original = plain(zoo.build("resnet56", where.weights))
    data = load(where.data, seed=0, val=5000, **NORMAL)
    whole = torch.cat([x for x, _ in data.val.batches(500)])
    partner = torch.randperm(len(whole), generator=torch_stream(0, "choose/partner"))
    blended = (whole + whole[partner]) / 2
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), {"macs": "0.5x"}, 0)
        state = State(copy.deepcopy(original), original, data, ((data.example(2),), {}))
        for step in (prune(images=CALIBRATION), reconstruct(images=CALIBRATION), recalibrate(images=CALIBRATION)):
            state = step(state, run)
        before = following(original, state.model, blended)
        terms = ("soft_targets", *([{"hints": {"weight": weight}}] if weight else []))
        state = train(epochs=epochs, lr=lr, mixup=mixup, terms=terms)(state, run)
        run.close()
    return {
        "epochs": epochs,
        "lr": lr,
        "mixup": mixup,
        "hints": weight,
        "one-shot": before,
        "trained": following(original, state.model, blended),
        "validation": evaluate(state.model, data.val).accuracy,
        "test reads": data.test_reads,
    }


def rows(where: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name every row and say how it is made."""
    for epochs, lr, mixup, weight in CHOICES:
        hints = f"_hints{weight:g}" if weight else ""
        yield f"choose_{epochs}epochs_lr{lr}_mixup{mixup}{hints}", partial(row, epochs, lr, mixup, weight, where)


if __name__ == "__main__":
    main(__doc__, "benchmarks/results", rows, "data", "weights")
