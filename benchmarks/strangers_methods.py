"""Every method that learns or searches, on networks that none was tuned on: it must run, prove, export, keep budgets.

    python benchmarks/strangers_methods.py --out benchmarks/results/strangers_methods

Three small networks on scikit-learn's digits, each trained for eight epochs first: one of residual bottlenecks, one
that concatenates (a densely connected block, then an inception module), one of depthwise convolutions (inverted
residuals). Trials and trainings are short: rows tell that a method works there, and no row how well it does. Beside
the run's own proofs, the exported file is run on validation pictures against the network that the run returned, MACs
are counted anew from its trace, and parameters from its tensors. Each row reads the 360 test pictures once a network.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import nn

from networks import small_bottleneck_net, small_concat_net, small_depthwise_net
from penjing import api
from penjing.data import Data, digits
from penjing.graph.trace import plain, trace
from penjing.training.loop import fit
from penjing.training.options import Options
from rows import arguments, fill

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "bottleneck": small_bottleneck_net,
    "concat": small_concat_net,
    "depthwise": small_depthwise_net,
}

TRAIN = {"train": {"epochs": 1, "batch": 64}}
BREEDING = {"population": 6, "iterations": 2, "parents": 3, "mutations": 3, "crossovers": 3}


@dataclass(frozen=True)
class Way:
    """Steps and the budget they are given; ``shapes`` says whether shapes become smaller, or weights zero."""

    steps: list[Any]
    budget: Mapping[str, Any] | None
    shapes: bool = True


def learned(*steps: Any) -> Way:
    """Return a way that cuts channels or blocks to half the MACs."""
    return Way(list(steps), {"macs": "0.5x"})


def searched(allocator: Any, rewrite: Any = "channels") -> Way:
    """Return the search by an allocator, judged on validation."""
    judged = {"error": {"images": 144, "recalibrate": 1}}
    cut = {"rewrite": rewrite, "criterion": "l1", "allocator": allocator, "measure": judged}
    return learned({"prune": cut}, "reconstruct", "recalibrate")


BOTH = ["channels", "layers"]

WAYS = {
    "amc": learned({"amc": {"trials": 24, "images": 128, "epochs": 1}}),
    "n2n": learned({"n2n": {"updates": 4, "rollouts": 3, "taught": 1, "images": 256, "epochs": 1}}),
    "taylor_fo": learned({"taylor_fo": {"rounds": 3, "epochs": 1}}),
    "gal": learned({"gal": {"epochs": 2, "batch": 64, "images": 256}}, TRAIN),
    "metapruning": learned({"metapruning": {"epochs": 2, "start": "generated", "allocator": {"evolution": BREEDING}}},
                           TRAIN),
    "rbp": learned({"rbp": {"epochs": 0.5, "batch": 64, "images": 256}}, "recalibrate"),
    "ssl": learned({"ssl": {"epochs": 2, "batch": 64, "images": 256}}, TRAIN),
    "ssl-depth": learned({"ssl": {"epochs": 2, "batch": 64, "groups": ["filters", "channels", "depth"]}}, TRAIN),
    "ddpg_sigma": Way([{"ddpg_sigma": {"sparsity": 0.6, "trials": 24, "epochs": 1}}], None, shapes=False),
    "han": Way([{"han": {"sparsity": 0.6, "rounds": 2, "epochs": 1}}], None, shapes=False),
    "gmp": Way([{"gmp": {"epochs": 2, "batch": 64}}], {"nonzero": "0.4x"}, shapes=False),
    "obc": Way(["obc", "recalibrate"], {"nonzero": "0.4x"}, shapes=False),
    "search-random": searched({"random": {"trials": 16}}, BOTH),
    "search-abcpruner": searched({"abcpruner": {"sources": 4, "cycles": 2}}, BOTH),
    "search-evolution": searched({"evolution": BREEDING}, BOTH),
    "search-n2n": searched({"n2n": {"updates": 4, "rollouts": 3}}, BOTH),
    "search-ddpg": searched({"ddpg": {"trials": 24}}, BOTH),
    "search-knapsack": searched({"knapsack": {"loss": "auto", "trials": 64}}, BOTH),
}  # fmt: skip


@cache
def trained(name: str) -> tuple[nn.Module, Data]:
    """Return a network, trained shortly, and its data."""
    torch.manual_seed(0)
    model, data = NETWORKS[name](), digits()
    fit(model, data.train, data.val, Options(epochs=8, lr=0.1, batch=64, precision="32-true"), seed=0)
    return model, data


def row(network: str, name: str) -> dict[str, Any]:
    """Take one way with one network, and look at what comes out."""
    way = WAYS[name]
    model, _ = trained(network)
    data = digits()
    start = time.process_time()
    result = api.run(copy.deepcopy(model), data, [*way.steps, "export"], way.budget)
    seconds = time.process_time() - start
    told = result.results
    original, smaller = told["rows"][0], told["rows"][-1]
    x, _ = next(iter(data.val.batches(64)))
    macs = _macs(result.model, data) / _macs(model, data)
    left = {
        "macs": macs,
        "params": _count(result.model) / _count(model),
        "nonzero": smaller["nonzero"] / original["nonzero"],
    }
    proofs: dict[str, float] = {}
    for one in told["certificates"]:
        proofs[one["name"]] = max(one["difference"], proofs.get(one["name"], 0.0))
    found = {
        "network": network,
        "method": name,
        "steps": way.steps,
        "left": {cost: round(share, 4) for cost, share in left.items()},
        "budget": way.budget,
        "proofs": proofs,
        "file against network": _gap(result.files, result.model, x),
        "bytes": [original["size"], smaller["size"]],
        "accuracy": [original["accuracy"], smaller["accuracy"]],
        "test reads": told["test_reads"],
        "remarks": told["remarks"],
        "seconds of the processor": round(seconds, 1),
    }
    wrong = _wrong(found, way, told)
    return found | ({"error": "; ".join(wrong)} if wrong else {})


def _wrong(found: Mapping[str, Any], way: Way, told: Mapping[str, Any]) -> list[str]:
    """Say what a row must not be."""
    wrong = [f"{one['name']}: {one['difference']:.1e}" for one in told["certificates"] if not one["ok"]]
    if not found["file against network"] < 1e-4:
        wrong.append("the file is another network")
    left = found["left"]
    if way.shapes and not (left["macs"] <= 0.5 and left["params"] < 1 and found["bytes"][1] < found["bytes"][0]):
        wrong.append("no shape is smaller")
    if not way.shapes and not (left["nonzero"] < 0.6 and left["params"] == 1):
        wrong.append("weights are not zero")
    return wrong


def _macs(model: nn.Module, data: Data) -> int:
    return sum(layer.macs for layer in trace(plain(model), (data.example(2),), proof=False).layers)


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def _gap(files: Mapping[str, Path], model: nn.Module, x: torch.Tensor) -> float:
    """Return how far the exported file is from the network, relative to the largest output."""
    (path,) = files.values()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    ours = model.eval()(x)
    return float((ours - torch.from_numpy(theirs)).abs().max() / ours.abs().max())


def rows() -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name the rows."""
    for name in WAYS:
        for network in NETWORKS:
            yield f"{name}_{network}", partial(row, network, name)


def main() -> None:
    """Fill the rows."""
    where = arguments(__doc__, "benchmarks/results/strangers_methods").parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    fill(where.out, rows(), where.only)


if __name__ == "__main__":
    main()
