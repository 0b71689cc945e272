"""One row: a baseline, one method under one budget and length, what came of it; and its twin from scratch."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from papers.baselines import baseline, home
from papers.clock import Clock
from papers.learn import learned
from papers.lengths import LENGTHS, course, fraction
from papers.methods import METHODS, SPARSE, Setting
from papers.scale import Scale
from papers.subjects import Subject
from penjing import api
from penjing.core.errors import PlanError
from penjing.core.registry import build
from penjing.data import Data
from penjing.exporting import bundle
from penjing.graph.trace import plain, trace
from penjing.publish import RESULTS, read_results
from penjing.steps.learned import gated_sites
from penjing.training.evaluate import evaluate
from penjing.training.state import chance
from penjing.zoo.initial import he_normal


@dataclass(frozen=True)
class Asked:
    """What a row asks: the share of a ``cost`` to remove, in %, by a method, from a network, with a seed.

    The cost is ``params`` or ``macs``; methods that set single weights to zero count those as removed.
    """

    table: str
    subject: Subject
    method: str
    cost: str
    removed: float
    seed: int

    @property
    def name(self) -> str:
        """The row's name."""
        return f"{self.table}_{self.method}_{self.removed:g}_seed{self.seed}"


def setting_of(asked: Asked, network: nn.Module, data: Data, scale: Scale) -> Setting:
    """Return what the method is told."""
    search, train = course(asked.method, scale)
    graph = trace(plain(network), (data.example(2),), proof=False)
    return Setting(
        search, train, scale.trials, scale.bees, scale.policies, scale.rounds, len(data.train),
        len(gated_sites("papers", graph, ("*",), ())), asked.subject.blocks, asked.removed / 100, network,
        scale.epochs is None,
    )  # fmt: skip


def row(asked: Asked, scale: Scale, where: argparse.Namespace) -> dict[str, Any]:
    """Cut, train, and return the row; the run lies in a folder, from which it goes on after a kill.

    Raises: PlanError when somebody ended its search or training by hand, which would be no fair row.
    """
    data = asked.subject.data(where, asked.seed, scale)
    network, trained = baseline(asked.subject, data, asked.seed, scale, where)
    setting = setting_of(asked, network, data, scale)
    budget = None if asked.method in SPARSE else f"{asked.cost}={1 - asked.removed / 100:.6g}x"
    steps = METHODS[asked.method](setting)
    results, spent = run(home(where, scale) / asked.name, network, data, steps, budget, asked.seed)
    return {
        "scale": scale.name,
        "table": asked.table,
        "network": asked.subject.name,
        "data": data.name,
        "method": asked.method,
        "asked": {asked.cost: asked.removed},
        "seed": asked.seed,
        "epochs": setting.search + setting.train,
        "epochs of the search": setting.search,
        "share of the paper's length": round(fraction(asked.method, scale), 4),
        "paper's length": {"epochs": LENGTHS[asked.method].whole, "known": LENGTHS[asked.method].known},
        "baseline epochs": trained["epochs"],
        "train pictures": len(data.train),
        "validation pictures": len(data.val),
        **outcome(results),
        **spent,
    }


def run(
    folder: Path, network: nn.Module, data: Data, steps: Sequence[Any], budget: str | None, seed: int
) -> tuple[dict[str, Any], dict[str, float]]:
    """Run the steps, or go on with them, or read what they came to; return the results and the minutes spent.

    Raises: PlanError when a search or training was ended by hand.
    """
    clock = folder.parent / f"{folder.name}.clock.json"
    with Clock(clock) as spent:
        if not (folder / RESULTS).exists():
            api.run(network, data, steps, budget, folder=folder, seed=seed, threads=1, batch=1)
        results: dict[str, Any] = read_results(folder)
        if any("stopped by hand" in remark for remark in results["remarks"]):
            shutil.rmtree(folder)
            clock.unlink(missing_ok=True)
            raise PlanError("A search or a training of this row was ended by hand; run it again.")
        return results, spent.minutes()


def outcome(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row says of a finished run; test was read once a network, in the last step."""
    original, ours = results["rows"][:2]
    return {
        "budget": results["budget"],
        "accuracy": ours["accuracy"],
        "baseline accuracy": original["accuracy"],
        "drop": round(original["accuracy"] - ours["accuracy"], 2),
        "validation": results["validation"],
        "params removed": round(100 * (1 - ours["nonzero"] / original["params"]), 2),
        "macs removed": round(100 * (1 - ours["macs"] / original["macs"]), 2),
        "searches": results["searches"],
        "seconds": {stage["name"]: stage["seconds"] for stage in results["stages"]},
        "widths": {site["site"]: [site["before"], site["after"]] for site in results["sites"]},
        "remarks": results["remarks"],
        "test reads": results["test_reads"],
    }


# ------------------------------------------------------------------------------------------------- from scratch


def twin(asked: Asked, scale: Scale, where: argparse.Namespace) -> dict[str, Any]:
    """Train the network that a row found from new weights, for as long as the row; test is read once.

    Raises: PlanError when the row has not been made.
    """
    folder = home(where, scale) / asked.name
    if not (folder / RESULTS).exists():
        raise PlanError(f"{asked.name} has to be made before its twin.")
    data = asked.subject.data(where, asked.seed, scale)
    model = renewed(bundle.load(folder, asked.subject.build, packed=False), asked.seed)
    epochs = round(sum(course(asked.method, scale)))
    terms = [build("term", "hold_zeros")] if asked.method in SPARSE else []
    facts = learned(model, data, epochs, asked.subject.lr, asked.seed, folder.parent / f"{asked.name}_twin", terms)
    tested = evaluate(model, data.test)
    known = outcome(read_results(folder))
    return {
        "scale": scale.name,
        "twin of": asked.name,
        "accuracy": tested.accuracy,
        "drop": round(known["baseline accuracy"] - tested.accuracy, 2),
        "behind the row": round(known["accuracy"] - tested.accuracy, 2),
        "nonzero": sum(int((p != 0).sum()) for p in model.parameters()),
        **facts,
        "test reads": data.test_reads,
    }


def renewed(model: nn.Module, seed: int) -> nn.Module:
    """Return the network with new weights as a baseline's are drawn, with its zeros where they are.

    A weight that stays is larger the fewer there are, so that what a layer writes keeps its size.
    """
    stays = {name: p != 0 for name, p in model.named_parameters() if p.ndim >= 2}
    with chance(seed, "papers/twin", torch.device("cpu")), torch.no_grad():
        he_normal(model)
        for name, mask in stays.items():
            weight = model.get_parameter(name)
            weight.mul_(mask / mask.double().mean().clamp_min(1 / mask.numel()).sqrt().to(weight.dtype))
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.reset_running_stats()
    return model
