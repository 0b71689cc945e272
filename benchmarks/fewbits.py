r"""Few bits: every method from the same trained network for as many epochs, accuracy beside bytes and measured time.

    python benchmarks/fewbits.py --data CIFAR_FOLDER --models MODELS_FOLDER --seeds 0

The folders are those of ``hardware.py``. Rows are of ResNet-20 as published, of VGG-16 at half its width, trained here
first and kept in ``runs``, and of VGG-16 as published, of which no more than bytes and time are told. Rows of one plan
of channels, ranks and bits stand beside those of each of them alone. ``--epochs`` and ``--pictures`` make short rows;
their names and ``length`` say so. ``--show`` prints the tables, ``--plot FILE`` draws accuracy against bytes. A row
that is done is skipped, one that was killed goes on, ``--only`` picks rows by a part of their name. Every row reads the
test set once a network, in its last step; all that is chosen is chosen on pictures cut from train.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from fewbits_methods import BUDGETS, FAMILIES, METHODS, STORED, WIDE, family
from fewbits_show import drawn, read, tables
from hardware import RESNET56, VGG16, Network
from papers.clock import Clock
from papers.learn import learned
from penjing import api, zoo
from penjing.core.errors import Infeasible, Missed
from penjing.data import Data
from penjing.exporting import bundle
from penjing.exporting.measure import ratio
from penjing.exporting.runtimes.subject import Subject
from penjing.graph.trace import plain
from penjing.publish import RESULTS, read_results
from penjing.steps.order import ordered
from penjing.steps.original import original_of
from penjing.steps.state import Run, State
from penjing.training.evaluate import evaluate
from penjing.training.state import chance
from rows import Row, answer, arguments, scale, short

EPOCHS = 20
"""Of every row from a trained network; rows from new weights have twice as many."""

BASELINE, BASELINE_LR = 60, 0.05
"""Epochs and rate of VGG-16 at half its width."""

RESNET20 = Network("resnet20", "resnet20_cifar10.safetensors", RESNET56.normal, ())
HALF = "vgg16_half"


def pictures(network: Network, where: argparse.Namespace, seed: int) -> Data:
    """Return the data, with as many training pictures as the row may have."""
    return short(network.data(where, seed), where.pictures, seed)


def length(where: argparse.Namespace, epochs: int) -> dict[str, Any]:
    """Return what a row says of how long it was trained."""
    whole = where.epochs >= EPOCHS and where.pictures is None
    return {"length": "full" if whole else "short" if epochs else "no training", "epochs": epochs}


# ------------------------------------------------------------------------------------------------- networks


def half(where: argparse.Namespace, data: Data, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """Return VGG-16 at half its width, trained by the first row that asks, and how it was trained."""
    with chance(seed, "fewbits/baseline", torch.device("cpu")):
        model = zoo.vgg16_bn(width=0.5)
    epochs = BASELINE if where.epochs >= EPOCHS else 3 * where.epochs
    folder = where.out / "runs" / f"{HALF}_{scale(where, epochs)}_seed{seed}"
    return model, learned(model, data, epochs, BASELINE_LR, seed, folder)


def fresh(seed: int) -> nn.Module:
    """Return ResNet-20 with new weights."""
    with chance(seed, "fewbits/fresh", torch.device("cpu")):
        return zoo.resnet20()


# ------------------------------------------------------------------------------------------------- rows


def row(network: str, method: str, start: str, seed: int, name: str, where: argparse.Namespace) -> dict[str, Any]:
    """Round, train, export and measure; return the row. ``start`` is ``trained`` or ``fresh``."""
    new = start == "fresh"
    epochs = where.epochs * (2 if new else 1)
    data = pictures(VGG16 if network == HALF else RESNET20, where, seed)
    told: dict[str, Any] = {}
    if network == HALF:
        model, told["baseline"] = half(where, data, seed)
    else:
        model = fresh(seed) if new else RESNET20.build(where)
    steps = [*METHODS[method].course(epochs, new), "export", "check"]
    results, files = ran(where.out / "runs" / name, model, data, steps, None, seed)
    facts = outcome(results, new) | files | told
    trained = len(facts["validation by epoch"])
    return {
        "network": network, "method": method, "bits": METHODS[method].bits, "file": METHODS[method].file,
        "start": start, "seed": seed, **length(where, trained), "train pictures": len(data.train),
        "validation pictures": len(data.val), **facts,
    }  # fmt: skip


def planned(name: str, budget: str, seed: int, run: str, where: argparse.Namespace) -> dict[str, Any]:
    """Return the row of one plan of a family, or of all in one; one that cannot meet its budget says so."""
    data = pictures(RESNET20, where, seed)
    steps = [*family(name, where.epochs), "export", "check"]
    told = {"network": "resnet20", "family": name, "budget": budget, "seed": seed, **length(where, where.epochs)}
    told["train pictures"], folder = len(data.train), where.out / "runs" / run
    try:
        results, files = ran(folder, RESNET20.build(where), data, steps, budget, seed)
    except Infeasible as error:
        shutil.rmtree(folder, ignore_errors=True)
        clocked(folder).unlink()
        return told | {"infeasible": str(error)}
    sites = {s["site"]: [s["before"], s["after"]] for s in results["sites"] if s["before"] != s["after"]}
    missed = not all(bound["met"] for bound in results["budget"])
    more = {"budget met": results["budget"], "missed": missed, "rounds": results["rounds"], "sites": sites}
    return told | outcome(results, False) | files | more | {"searches": results["searches"]}


def ran(
    folder: Path, model: nn.Module, data: Data, steps: Sequence[Any], budget: str | None, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run steps, or go on with them; return the results, and bytes and minutes. The folder goes in the end.

    Raises: Infeasible where nothing meets the budget.
    """
    with Clock(clocked(folder)) as clock:
        if not (folder / RESULTS).exists():
            with suppress(Missed):  # what was reached lies in the folder
                api.run(model, data, steps, budget, folder=folder, seed=seed, threads=1, batch=1)
        results = read_results(folder)
        files = {"bundle": stored(folder / bundle.BUNDLE), "original bundle": whole(model)} | clock.minutes()
    shutil.rmtree(folder)
    clock.path.unlink()
    return results, files


def clocked(folder: Path) -> Path:
    """Return where the minutes of a run are counted."""
    return folder.parent / f"{folder.name}.clock.json"


def outcome(results: dict[str, Any], new: bool) -> dict[str, Any]:
    """Return what a row says of a finished run; the accuracy of new weights says nothing."""
    original, ours = results["rows"][:2]
    return {
        "accuracy": ours["accuracy"],
        "original accuracy": None if new else original["accuracy"],
        "validation": results["validation"],
        "validation by epoch": [line["val_accuracy"] for line in results["training"]],
        "onnx": ours["size"],
        "original onnx": original["size"],
        "macs": ours["macs"] / original["macs"],
        "speed-up": ours["ratio"],
        "latency": ours["latency"],
        "original latency": original["latency"],
        "seconds": {stage["name"]: stage["seconds"] for stage in results["stages"]},
        "remarks": results["remarks"],
        "test reads": results["test_reads"],
    }


def stored(folder: Path) -> dict[str, int]:
    """Return the bytes of a bundle: all of it, its weights, and of those the packed ones."""
    packed = tuple(f"{name}/" for name in bundle.read_manifest(folder).packed)
    tensors = load_file(folder / bundle.WEIGHTS)
    return {
        "bytes": sum(path.stat().st_size for path in folder.iterdir()),
        "weights": (folder / bundle.WEIGHTS).stat().st_size,
        "packed": sum(tensor.nbytes for name, tensor in tensors.items() if name.startswith(packed)),
    }


def whole(model: nn.Module) -> dict[str, int]:
    """Return the bytes of the bundle of a network as it is."""
    with tempfile.TemporaryDirectory() as folder:
        return stored(bundle.write(Path(folder) / "whole", plain(model), finished=True))


def unmeasured(method: str, where: argparse.Namespace) -> dict[str, Any]:
    """Return bytes and time of VGG-16 as published, rounded and not trained; its accuracy would say nothing."""
    model, data = plain(VGG16.build(where)).eval(), pictures(VGG16, where, 0)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        state = State(model, model, data, ((data.example(2),), {}))
        for step in ordered([*METHODS[method].course(0), "export"]):
            state = step(state, run)
        file = state.files["model.onnx"]
        kept = bundle.write(Path(folder) / "kept", state.model, plans=state.plans, finished=True)
        first = original_of(state, run).subject
        timings = run.measure("both", {"original": first, "ours": Subject(file, state.model, state.example)})
        found = {
            "onnx": file.stat().st_size, "original onnx": Path(first.file).stat().st_size,
            "bundle": stored(kept), "original bundle": whole(model),
            "speed-up": vars(ratio(timings["original"], timings["ours"])),
            "latency ms": {name: timing.median_ms for name, timing in timings.items()},
        }  # fmt: skip
        run.close()
    one = METHODS[method]
    return {"network": "vgg16_bn", "method": method, "bits": one.bits, "file": one.file, "length": "no training",
            **found, "test reads": data.test_reads}  # fmt: skip


def baseline(seed: int, where: argparse.Namespace) -> dict[str, Any]:
    """Return the row of VGG-16 at half its width in floats; test is read once."""
    data = pictures(VGG16, where, seed)
    model, facts = half(where, data, seed)
    tested = evaluate(model.eval(), data.test)
    return {"network": HALF, "method": "float", "seed": seed, "accuracy": tested.accuracy,
            "original bundle": whole(model), **facts, "test reads": data.test_reads}  # fmt: skip


def rows(where: argparse.Namespace) -> Iterator[Row]:
    """Name every row and say how it is made."""
    e, e2 = scale(where, where.epochs), scale(where, 2 * where.epochs)

    def one(network: str, method: str, start: str, long: str, seed: int) -> tuple[str, Callable[[], dict[str, Any]]]:
        name = f"{network}_{method}_{'' if start == 'trained' else 'fresh_'}{long}_seed{seed}"
        return name, partial(row, network, method, start, seed, name, where)

    for seed in where.seeds:
        for method in METHODS:
            yield one("resnet20", method, "trained", e, seed)
        for budget in BUDGETS:
            for name in FAMILIES:
                run = f"resnet20_{budget.replace('=', '').replace(',', '_')}_{name}_{e}_seed{seed}"
                yield run, partial(planned, name, budget, seed, run, where)
        yield f"{HALF}_float_{e}_seed{seed}", partial(baseline, seed, where)
        for method in WIDE:
            yield one(HALF, method, "trained", e, seed)
        for method, how in METHODS.items():
            if how.binary:
                yield one("resnet20", method, "fresh", e2, seed)
    for method in STORED:
        yield f"vgg16_bn_{method}_untrained", partial(unmeasured, method, where)


def main() -> None:
    """Fill the rows, or name, show or draw them."""
    parser = arguments(__doc__, "benchmarks/results/fewbits")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    answer(parser, rows, "data", "models", tables=lambda out: tables(read(out)), drawn=lambda out: drawn(read(out)))


if __name__ == "__main__":
    main()
