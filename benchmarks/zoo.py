r"""Every network of the zoo for 32 x 32 pictures: trained, cut to half its MACs, recovered, exported; one table.

    python benchmarks/zoo.py --data CIFAR_FOLDER --out benchmarks/results/zoo

The data folder holds train.npz and test.npz (x: uint8 [N, 32, 32, 3], y). Each network trains from new weights for 2
epochs, is cut as ``penjing compress`` cuts, and trains for 1 more, taught by what it was. That is far from what these
networks can reach: rows tell that each goes the whole way, and no row which network is best. Networks for pictures of
another size (``zoo.picture``) are left out: those of ImageNet's, whose forms for 32 x 32 are here, and ``digits_net``.

``--pictures`` trains on so many pictures alone; names of rows say so. A row that is done is skipped, one that was
killed goes on; ``--only`` picks rows by a part of their name, ``--list`` names them, ``--show`` prints the table in
Markdown. Validation pictures are cut from train; test is read once a network, in the last step.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch

from fewbits_show import read
from papers.clock import Clock
from papers.learn import learned
from penjing import api, zoo
from penjing.core.errors import Missed
from penjing.data import Data, load
from penjing.publish import RESULTS, read_results
from penjing.recipe import usual_steps
from penjing.training.evaluate import evaluate
from penjing.training.recalibrate import recalibrate
from penjing.training.state import chance
from rows import Row, answer, arguments, short

SIZE = (3, 32, 32)
"""Pictures of the networks that have a row."""

EPOCHS, LR = 2, 0.05
"""Of training from new weights."""

RECOVERY, RECOVERY_LR = 1, 0.02
"""Of training after the cut; the network is not settled after two epochs, so the rate is higher than usual."""

BUDGET = "macs=0.5x"

CALIBRATION = 1024
"""Pictures by which batch norm's statistics are taken anew after training."""


def networks() -> list[str]:
    """Return the networks that have a row."""
    return [name for name in zoo.BUILDERS if zoo.picture(name) == SIZE]


def pictures(where: argparse.Namespace, seed: int) -> Data:
    """Return the data, with as many training pictures as the row may have."""
    return short(load(where.data, seed=seed, val=5000), where.pictures, seed)


def steps() -> list[Any]:
    """Return the steps of ``compress``, with validation accuracy told right after the cut and in the end."""
    cut, *recovery = usual_steps(RECOVERY, RECOVERY_LR)
    return [cut, "evaluate", *recovery[:-2], "evaluate", *recovery[-2:]]


def row(network: str, name: str, seed: int, where: argparse.Namespace) -> dict[str, Any]:
    """Train, cut, recover, export and measure a network; return the row."""
    data, folder = pictures(where, seed), where.out / "runs" / name
    with chance(seed, f"zoo/{network}", torch.device("cpu")):
        model = zoo.build(network)
    training = learned(model, data, EPOCHS, LR, seed, folder / "training")
    # After so few steps the running statistics are still near those of the start, and the signal may fade through them.
    recalibrate(model, data.calibration(CALIBRATION, seed))
    with Clock(folder / "clock.json") as clock:
        if not (folder / "run" / RESULTS).exists():
            with suppress(Missed):  # what was reached lies in the folder
                api.run(model, data, steps(), BUDGET, folder=folder / "run", seed=seed, threads=1, batch=1)
        facts = outcome(read_results(folder / "run"))
        compression = clock.minutes()
    shutil.rmtree(folder)
    trained = evaluate(model, data.val).accuracy
    told = {"network": network, "seed": seed, "length": "full" if where.pictures is None else "short"}
    return {**told, "training": training, "compression": compression, "validation after training": trained, **facts}


def outcome(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row says of a finished run."""
    original, ours = results["rows"][:2]
    both = {
        f"{prefix}{key}": one[key]
        for prefix, one in (("original ", original), ("", ours))
        for key in ("params", "macs", "accuracy", "latency")
    }
    cut, recovered = results["validation"]["before"], results["validation"]["after"]
    return {
        **both,
        "validation after the cut": cut,
        "validation after recovery": recovered,
        "speed-up": ours["ratio"],
        "budget met": results["budget"],
        "certificates": results["certificates"],
        "remarks": results["remarks"],
        "test reads": results["test_reads"],
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows in Markdown."""
    head = ["network", "parameters", "MACs, M", "parameters left", "MACs left", "validation, trained, %", "cut, %",
            "recovered, %", "test, trained, %", "test, recovered, %", "ms", "ms after", "times as fast", "proofs",
            "training"]  # fmt: skip
    lines = [head, ["---"] + ["--:"] * (len(head) - 3) + ["---"] * 2]
    for one in rows:
        proofs = one["certificates"]
        broken = [proof["name"] for proof in proofs if not proof["ok"]]
        worst = max((proof["difference"] for proof in proofs), default=0.0)
        length = f"{one['training']['epochs']} epochs of {one['training']['train pictures']:,} pictures"
        lines.append([
            f"`{one['network']}`", f"{one['original params']:,.0f}", f"{one['original macs'] / 1e6:.1f}",
            f"{one['params'] / one['original params']:.1%}", f"{one['macs'] / one['original macs']:.1%}",
            f"{one['validation after training']:.2f}", f"{one['validation after the cut']:.2f}",
            f"{one['validation after recovery']:.2f}", f"{one['original accuracy']:.2f}", f"{one['accuracy']:.2f}",
            f"{one['original latency']['median_ms']:.3f}", f"{one['latency']['median_ms']:.3f}",
            f"{one['speed-up']['median']:.2f}",
            f"fails: {', '.join(broken)}" if broken else f"{len(proofs)} hold, within {worst:.0e}",
            f"**short:** {length}" if one["length"] == "short" else length,
        ])  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rows(where: argparse.Namespace) -> Iterator[Row]:
    """Name every row and say how it is made."""
    few = "" if where.pictures is None else f"_{where.pictures}pictures"
    for seed in where.seeds:
        for network in networks():
            name = f"{network}{few}_seed{seed}"
            yield name, partial(row, network, name, seed, where)


def main() -> None:
    """Fill the rows, name them, or show them."""
    parser = arguments(__doc__, "benchmarks/results/zoo")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    answer(parser, rows, "data", tables=lambda out: table(read(out)))


if __name__ == "__main__":
    main()
