r"""Distillation: what each term is worth, for a student of another depth or width, and after a deep cut.

    python benchmarks/distill.py --data CIFAR10_FOLDER --data100 CIFAR100_FOLDER --models MODELS_FOLDER

The data folders hold train.npz and test.npz (x: uint8 [N, 32, 32, 3], y); the models folder holds
resnet56_cifar10.safetensors. First ResNet-56 teaches ResNet-20 from new weights, each term for as many epochs as none.
Then the two terms that were best on validation, and none, teach a ResNet-56 of half the width, and ResNet-20 on
CIFAR-100, whose teacher is trained here first and kept in ``runs``. Then ResNet-56 is cut to a half and a quarter of
its MACs and recovers, taught by what it was, with the three best terms, with these together, and with the default of
``penjing compress``; with labels and without.

``--epochs`` and ``--pictures`` make short rows; their names and ``length`` say so. A row that is done is skipped, one
that was killed goes on, ``--only`` picks rows by a part of their name, ``--list`` names them, ``--show`` prints the
tables in Markdown, ``--plot FILE`` draws them. All that is chosen is chosen on pictures cut from train; a row reads the
test set in its last step, once a network.
"""

from __future__ import annotations

import argparse
import copy
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import nn

from distill_show import drawn, tables
from fewbits_show import read
from hardware import RESNET56
from papers.clock import Clock
from papers.learn import learned
from penjing import api, load, zoo
from penjing.core.errors import PlanError
from penjing.data import Data
from penjing.data import load as pictures_of
from penjing.data.pairs import Batches
from penjing.data.splits import Indices, Split
from penjing.exporting import bundle
from penjing.graph.trace import plain
from penjing.publish import RESULTS, read_results
from penjing.steps.order import ordered
from penjing.steps.state import Run, State
from penjing.steps.train import train
from penjing.training.evaluate import evaluate
from penjing.training.state import chance
from rows import Row, answer, arguments, scale, short

EPOCHS, LR = 10, 0.1
"""Of a student from new weights."""

TEACHER = 2
"""Times as many epochs as a student has: the teacher's on CIFAR-100."""

RECOVERY, RECOVERY_LR = 4, 0.01
"""Of training after the cut."""

TERMS: Mapping[str, tuple[Any, ...]] = {
    "none": (),
    "soft_targets": ("soft_targets",),
    "attention_transfer": ("attention_transfer",),
    "fitnets": ("fitnets",),
    "dkd": ("dkd",),
    "dist": ({"dist": {"temperature": 4.0}},),
    "self_distillation": ("self_distillation",),
}
"""What is added to the loss; ``dist`` at the temperature that its paper takes for pictures of 32 x 32."""

STUDENTS = {"resnet20": "resnet20", "resnet56_half": "resnet56(width=0.5)"}
BUDGETS = ("0.5x", "0.25x")


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """A split without the classes of its pictures."""

    split: Split

    def __len__(self) -> int:
        return len(self.split)

    @property
    def labels(self) -> Any:
        """Return nothing."""
        return np.empty(0, np.int64)

    def batches(
        self, size: int, *, seed: int | None = None, epoch: int = 0, augment: bool = False, view: int | None = None
    ) -> Batches:
        """Yield the pictures alone."""
        more = self.split.batches(size, seed=seed, epoch=epoch, augment=augment, view=view)
        yield from ((x, None) for x, _ in more)

    def subset(self, indices: Indices) -> Unlabelled:
        """Return the pictures at these positions."""
        return Unlabelled(self.split.subset(indices))


def without_classes(data: Data) -> Data:
    """Return the same pictures, of which nobody knows the class."""
    train_, val, test = (Unlabelled(split) for split in (data.train, data.val, data.test))
    return replace(data, train=train_, val=val, test=test, classes=())


def pictures(source: str, where: argparse.Namespace, seed: int) -> Data:
    """Return the data, with as many training pictures as the row may have."""
    if source == "cifar10":
        data = RESNET56.data(where, seed)
    elif where.data100 is None:
        raise PlanError("Rows of CIFAR-100 need its pictures: give --data100.")
    else:
        data = pictures_of(where.data100, seed=seed, val=5000)
    return short(data, where.pictures, seed)


# ------------------------------------------------------------------------------------------------- networks


def student(name: str, data: Data, seed: int) -> nn.Module:
    """Return a student with new weights."""
    spec = STUDENTS[name].removesuffix(")")
    with chance(seed, f"distill/{name}", torch.device("cpu")):
        return zoo.build(f"{spec}{', ' if '(' in spec else '('}num_classes={data.num_classes})")


def teacher(source: str, data: Data, where: argparse.Namespace) -> tuple[nn.Module, dict[str, Any]]:
    """Return who teaches on these pictures, and how it was trained; one for all seeds."""
    if source == "cifar10":
        return RESNET56.build(where).eval(), {"trained": "published"}
    with chance(0, "distill/teacher", torch.device("cpu")):
        model = zoo.resnet56(num_classes=data.num_classes)
    epochs = TEACHER * where.epochs
    return model, learned(model, data, epochs, LR, 0, where.out / "runs" / f"{source}_teacher_{scale(where, epochs)}")


def cut(budget: str, data: Data, where: argparse.Namespace, seed: int) -> nn.Module:
    """Return ResNet-56 at a share of its MACs, without training, made by the first row that asks."""
    place = where.out / "runs" / f"cut{budget}{scale(where, 0).removeprefix('0epochs')}_seed{seed}"
    if not place.exists():
        original = plain(RESNET56.build(where)).eval()
        state = State(copy.deepcopy(original), original, data, ((data.example(2),), {}))
        with tempfile.TemporaryDirectory() as folder:
            run = Run(Path(folder), {"macs": budget}, seed)
            for step in ordered(["prune", "reconstruct", "recalibrate"]):
                state = step(state, run)
            run.close()
        bundle.write(place, state.model, builder=zoo.builder_of("resnet56"), plans=state.plans)
    return bundle.load(place)


# ------------------------------------------------------------------------------------------------- rows


def best(where: argparse.Namespace, count: int) -> list[str]:
    """Return the terms whose students were right most often on validation pictures, over all seeds.

    Raises: PlanError when a row is missing.
    """
    found: dict[str, list[float]] = {term: [] for term in TERMS if term != "none"}
    for row in read(where.out):
        mine = (row["part"], row.get("student"), row.get("data")) == ("teach", "resnet20", "cifar10")
        if mine and row["epochs"] == where.epochs and row["pictures asked"] == where.pictures and row["terms"] in found:
            found[row["terms"]].append(row["validation"])
    lacking = [term for term, values in found.items() if len(values) < len(where.seeds)]
    if lacking:
        raise PlanError(
            f"The best terms are chosen among rows of ResNet-20 on CIFAR-10: make {', '.join(lacking)} first."
        )
    return sorted(found, key=lambda term: -mean(found[term]))[:count]


def ran(
    folder: Path, model: nn.Module, data: Data, lesson: train, tutor: nn.Module | None, seed: int
) -> tuple[dict[str, Any], nn.Module]:
    """Train, or go on with it; return the results with the minutes it took, and the network."""
    with Clock(folder.parent / f"{folder.name}.clock.json") as clock:
        if not (folder / RESULTS).exists():
            api.run(model, data, [lesson, "export"], folder=folder, seed=seed, threads=1, batch=1, teacher=tutor)
        results = read_results(folder) | clock.minutes()
    return results, load(folder, lambda: model)


def told(results: Mapping[str, Any], where: argparse.Namespace, full: bool, data: Data) -> dict[str, Any]:
    """Return what every row says of its training."""
    lessons = results["training"]
    return {
        "length": "full" if full and where.pictures is None else "short",
        "epochs": where.epochs if not lessons else len(lessons),
        "pictures asked": where.pictures,
        "train pictures": len(data.train),
        "validation by epoch": [line["val_accuracy"] for line in lessons],
        "training seconds": sum(line["seconds"] for line in lessons),
        "minutes": results["minutes"],
        "cpu minutes": results["cpu minutes"],
        "remarks": results["remarks"],
    }


def teaching(
    source: str, pupil: str, which: str | int, seed: int, name: str, where: argparse.Namespace
) -> dict[str, Any]:
    """Teach a student from new weights; ``which`` names the terms, or counts the best ones from 1."""
    terms = best(where, which)[-1] if isinstance(which, int) else which
    data = pictures(source, where, seed)
    tutor, facts = teacher(source, data, where)
    lesson = train(epochs=where.epochs, lr=LR, terms=TERMS[terms])
    folder = where.out / "runs" / name
    results, _ = ran(folder, student(pupil, data, seed), data, lesson, tutor if TERMS[terms] else None, seed)
    shutil.rmtree(folder)
    (folder.parent / f"{name}.clock.json").unlink()
    ours = results["rows"][1]
    return {
        "part": "teach", "data": source, "student": pupil, "terms": terms, "place": which, "seed": seed,
        **told(results, where, where.epochs >= EPOCHS, data), "validation": results["validation"]["after"],
        "accuracy": ours["accuracy"], "params": ours["params"], "macs": ours["macs"],
        "teacher": facts | {"validation": evaluate(tutor, data.val).accuracy},
        "test reads": results["test_reads"],
    }  # fmt: skip


def recovery(
    budget: str, which: str | int, labelled: bool, seed: int, name: str, where: argparse.Namespace
) -> dict[str, Any]:
    """Let the cut network recover, and judge it."""
    data, epochs = pictures("cifar10", where, seed), min(RECOVERY, where.epochs)
    model, tutor = cut(budget, data, where, seed), RESNET56.build(where).eval()
    before = evaluate(model, data.val).accuracy
    if which == "default":
        terms: tuple[Any, ...] = ("soft_targets" if labelled else "outputs", "hints")
    elif which == "together":
        terms = tuple(term for one in best(where, 3) for term in TERMS[one])
    else:
        terms = TERMS[best(where, which)[-1] if isinstance(which, int) else which]
    given = data if labelled else without_classes(data)
    folder = where.out / "runs" / name
    results, found = ran(
        folder, model, given, train(epochs=epochs, lr=RECOVERY_LR, terms=terms), tutor if terms else None, seed
    )
    facts = {
        "part": "recover", "budget": budget, "terms": _named(terms), "place": which, "labels": labelled, "seed": seed,
        **told(results, where, where.epochs >= RECOVERY, data), "validation after the cut": before,
        "validation": evaluate(found, data.val).accuracy, "params": results["rows"][1]["params"],
        "macs": results["rows"][1]["macs"],
    }  # fmt: skip
    tested = results["rows"][1]["accuracy"]
    facts["accuracy"] = evaluate(found, data.test).accuracy if tested is None else tested
    shutil.rmtree(folder)
    (folder.parent / f"{name}.clock.json").unlink()
    return facts | {"test reads": data.test_reads}


def _named(terms: Sequence[Any]) -> str:
    return " + ".join(term if isinstance(term, str) else next(iter(term)) for term in terms) or "none"


def rows(where: argparse.Namespace) -> Iterator[Row]:
    """Name every row and say how it is made; the best terms are known by their place until rows are made."""
    long, short = scale(where, where.epochs), scale(where, min(RECOVERY, where.epochs))
    for seed in where.seeds:
        for terms in TERMS:
            name = f"cifar10_resnet20_{terms}_{long}_seed{seed}"
            yield name, partial(teaching, "cifar10", "resnet20", terms, seed, name, where)
    places: list[tuple[str, str | int]] = [("none", "none"), ("best1", 1), ("best2", 2)]
    for source, pupil in (("cifar10", "resnet56_half"), ("cifar100", "resnet20")):
        for seed in where.seeds:
            for called, which in places:
                name = f"{source}_{pupil}_{called}_{long}_seed{seed}"
                yield name, partial(teaching, source, pupil, which, seed, name, where)
    more: list[tuple[str, str | int]] = [*places, ("best3", 3), ("together", "together"), ("default", "default")]
    for seed in where.seeds:
        for budget in BUDGETS:
            for labelled in (True, False):
                for called, which in more if labelled else more[1:]:
                    name = f"recover{budget}_{called}_{'' if labelled else 'unlabelled_'}{short}_seed{seed}"
                    yield name, partial(recovery, budget, which, labelled, seed, name, where)


def main() -> None:
    """Fill the rows, or name, show or draw them."""
    parser = arguments(__doc__, "benchmarks/results/distill")
    parser.add_argument("--data100", type=Path)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    answer(parser, rows, "data", "models", tables=lambda out: tables(read(out)), drawn=lambda out: drawn(read(out)))


if __name__ == "__main__":
    main()
