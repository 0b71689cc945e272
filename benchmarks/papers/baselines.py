"""Own baselines: each network trained once a seed, on the pictures that its rows train on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import nn

from papers.learn import learned
from papers.scale import Scale
from papers.subjects import Subject
from penjing.data import Data
from penjing.training.evaluate import evaluate
from penjing.training.state import chance


def home(where: argparse.Namespace, scale: Scale) -> Path:
    """Return where networks and runs of a scale lie."""
    return Path(where.out) / scale.name / "runs"


def baseline(
    subject: Subject, data: Data, seed: int, scale: Scale, where: argparse.Namespace
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the trained network and how it was trained; the first who asks trains it."""
    with chance(seed, "papers/baseline", torch.device("cpu")):
        model = subject.build()
    folder = home(where, scale) / f"baseline_{subject.name}_seed{seed}"
    return model, learned(model, data, scale.baseline, subject.lr, seed, folder)


def row(subject: Subject, seed: int, scale: Scale, where: argparse.Namespace) -> dict[str, Any]:
    """Return the row of a baseline; test is read once."""
    data = subject.data(where, seed, scale)
    model, facts = baseline(subject, data, seed, scale, where)
    tested = evaluate(model, data.test)
    size = sum(p.numel() for p in model.parameters())
    told = {"scale": scale.name, "network": subject.name, "seed": seed, "params": size, "accuracy": tested.accuracy}
    return told | facts | {"validation pictures": len(data.val), "test reads": data.test_reads}
