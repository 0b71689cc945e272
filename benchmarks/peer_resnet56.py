"""The leading channel-pruning library beside us: ResNet-56 on CIFAR-10 at half the MACs, helped by hand.

    pip install --no-deps torch-pruning
    python benchmarks/peer_resnet56.py --data CIFAR_FOLDER --weights resnet56_cifar10.safetensors --out results

The library does not cut the published network as it is (it mis-maps the zero-padded shortcuts), so its residual stream
is left whole, and the channel ratio is found by bisection, since it takes no MACs. Its criterion and learning rate
are chosen on validation pictures, the same as ours; the test set is read once a row. Recovery is ours without a
teacher: the same batch-norm statistics, optimiser, schedule and pictures.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from penjing import zoo
from penjing.data import load
from penjing.training.evaluate import evaluate
from penjing.training.loop import Options, fit
from penjing.training.recalibrate import recalibrate
from resnet56 import CALIBRATION, NORMAL
from rows import arguments, fill

CRITERIA = {"fpgm": "FPGMImportance", "l1": "MagnitudeImportance", "l2": "MagnitudeImportance"}


def cut(model: nn.Module, criterion: str, everywhere: bool, share: float) -> nn.Module:
    """Return the network cut to at most this share of its MACs."""
    import torch_pruning

    example = torch.randn(1, 3, 32, 32)
    whole, _ = torch_pruning.utils.count_ops_and_params(model, example)

    def at(ratio: float) -> tuple[nn.Module, float]:
        small = copy.deepcopy(model)
        options = {"p": int(criterion[1])} if criterion in ("l1", "l2") else {}
        importance = getattr(torch_pruning.importance, CRITERIA[criterion])(**options)
        inner = {m for n, m in small.named_modules() if n.endswith(".conv1")}
        ignored = [m for m in small.modules() if isinstance(m, nn.Conv2d | nn.Linear) and m not in inner]
        pruner = torch_pruning.pruner.BasePruner(
            small,
            example,
            importance=importance,
            pruning_ratio=ratio,
            global_pruning=everywhere,
            ignored_layers=ignored,
        )
        pruner.step()
        return small, torch_pruning.utils.count_ops_and_params(small, example)[0] / whole

    low, high = 0.0, 0.95
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if at(middle)[1] <= share else (middle, high)
    return at(high)[0]


def row(criterion: str, everywhere: bool, epochs: int, lr: float, seed: int, test: bool, where: Any) -> dict[str, Any]:
    """Cut, recalibrate, fine-tune, tell validation and, if asked, test accuracy."""
    model = zoo.build("resnet56", where.weights).eval()
    data = load(where.data, seed=seed, val=5000, **NORMAL)
    small = cut(model, criterion, everywhere, 0.5)
    recalibrate(small, data.calibration(CALIBRATION, seed, size=128))
    facts: dict[str, Any] = {"criterion": criterion, "global": everywhere, "epochs": epochs, "lr": lr, "seed": seed}
    if epochs:
        fit(small, data.train, data.val, Options(epochs=epochs, lr=lr), seed=seed)
    facts["validation"] = evaluate(small, data.val).accuracy
    if test:
        facts["accuracy"] = evaluate(small, data.test).accuracy
    import torch_pruning

    macs, params = torch_pruning.utils.count_ops_and_params(small, torch.randn(1, 3, 32, 32))
    facts |= {"macs": macs / 125_485_696, "params": params / 853_018, "test reads": int(test)}
    return facts | {
        "peer": f"torch-pruning {version('torch-pruning')}",
        "train pictures": len(data.train) * bool(epochs),
    }


def rows(where: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name every row and say how it is made."""
    for criterion in CRITERIA:
        for everywhere in (False, True):
            name = f"peer_choose_{criterion}_{'global' if everywhere else 'local'}"
            yield name, partial(row, criterion, everywhere, 0, 0.0, 0, False, where)
    for lr in (0.005, 0.01, 0.02, 0.05):
        yield f"peer_choose_lr{lr}", partial(row, where.criterion, where.everywhere, 2, lr, 0, False, where)
    for seed in (0, 1):
        for epochs in (0, 2):
            name = f"peer_macs0.5x_{epochs}epochs_seed{seed}"
            yield name, partial(row, where.criterion, where.everywhere, epochs, where.lr, seed, True, where)


def main() -> None:
    """Fill the rows."""
    parser = arguments(__doc__, "benchmarks/results")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--criterion", default="l2", help="what peer_choose rows found best")
    parser.add_argument("--everywhere", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    where = parser.parse_args()
    torch.set_num_threads(where.threads)
    fill(where.out, rows(where), where.only)


if __name__ == "__main__":
    main()
