"""Networks of low-rank filters, trained from scratch, beside their dense twins: equal epochs, pictures and seeds.

    python benchmarks/basis.py --data CIFAR_FOLDER --epochs 30 --out benchmarks/results/basis
    python benchmarks/basis.py --out benchmarks/results/basis_digits

With ``--data`` (train.npz and test.npz, x: uint8 [N, 32, 32, 3], y) it is ResNet-20, without it the digits network on
scikit-learn's digits. ``dense`` is the network as it is. ``flat`` has for each 3 x 3 convolution but the first half as
many filters as outputs, k x 1 and 1 x k in equal parts, joined by 1 x 1; in ``mixed`` half of them are k x k;
``flat-forward`` is drawn so that activations keep their variance. ``narrow`` is a dense network of the MACs of
``flat``, all layers thinner alike. Every row reads the test pictures once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from penjing import api, zoo
from penjing.data import Data, digits, load
from penjing.graph.trace import plain, trace
from rows import arguments, fill

NORMAL = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}

KINDS: dict[str, Mapping[str, Any]] = {
    "flat": {},
    "mixed": {"vertical": 0.25, "horizontal": 0.25},
    "flat-forward": {"init": "forward"},
}


def basis(kind: str) -> dict[str, Any]:
    """Return the step that gives every 3 x 3 convolution but the first filters of low rank."""
    return {
        "factorize": {"rewrite": {"lowrank_basis": dict(KINDS[kind])}, "ranks": {"share": 0.5}, "exclude": ["conv1"]}
    }


def row(kind: str, seed: int, data_folder: Path | None, epochs: int) -> dict[str, Any]:
    """Train one network and say what it costs and how often it is wrong."""
    torch.manual_seed(seed)
    data: Data = digits() if data_folder is None else load(data_folder, seed=seed, val=5000, **NORMAL)
    model = plain(zoo.digits_net() if data_folder is None else zoo.resnet20())
    training = {"train": {"epochs": epochs, "terms": [], "lr": 0.1, "batch": 64 if data_folder is None else 128}}
    start = time.process_time()
    steps: list[Any] = [basis(kind)] if kind in KINDS else []
    if kind == "narrow":
        thin = api.run(model, data, [basis("flat")], example=data.example(2), seed=seed).model
        limit = {"macs": sum(layer.macs for layer in trace(thin, (data.example(2),), proof=False).layers)}
        steps = [{"prune": {"criterion": "l1", "allocator": "uniform", "step": 1, "budget": limit}}]
    told = api.run(model, data, [*steps, training, "export", "check"], seed=seed, threads=1, batch=1).results
    original, small = told["rows"][0], told["rows"][-1]
    return {
        "kind": kind,
        "network": type(model).__name__,
        "seed": seed,
        "epochs": epochs,
        "accuracy": small["accuracy"],
        "macs": small["macs"] / original["macs"],
        "params": small["params"] / original["params"],
        "latency": small.get("ratio"),
        "proofs": {one["name"]: one["difference"] for one in told["certificates"]},
        "seconds of the processor": round(time.process_time() - start, 1),
    }


def rows(data: Path | None, epochs: int, seeds: int) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name every row and say how it is made."""
    for seed in range(seeds):
        for kind in ("dense", *KINDS, "narrow"):
            yield f"{kind}_{epochs}epochs_seed{seed}", partial(row, kind, seed, data, epochs)


def main() -> None:
    """Fill the rows."""
    parser = arguments(__doc__, "benchmarks/results/basis_digits")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=2)
    where = parser.parse_args()
    torch.set_num_threads(1)
    fill(where.out, rows(where.data, where.epochs, where.seeds), where.only)


if __name__ == "__main__":
    main()
