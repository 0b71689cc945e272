"""The public face: compress a model, run a recipe's steps, look at a model."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import penjing
from penjing.core import console
from penjing.core.errors import Missed, PlanError
from penjing.core.files import write_whole
from penjing.core.journal import NAME as JOURNAL
from penjing.core.journal import Journal
from penjing.core.plain import told
from penjing.core.registry import build
from penjing.costs.hardware import back_to_back
from penjing.data.data import Data
from penjing.dry_run import Preview, previewed
from penjing.exporting import bundle, sizes
from penjing.exporting.running import refuse_packed
from penjing.given import begin, inputs_of, target_of
from penjing.graph.graph import Graph
from penjing.graph.trace import plain, trace
from penjing.publish import REPORT, RESULTS, publish, read_results, unfinished
from penjing.recipe import ALLOCATOR, CRITERION, EPOCHS, LR, usual_steps
from penjing.references import make
from penjing.report.build import write_report
from penjing.report.explain import Explanation, explained
from penjing.results import BEGUN, READ, gather
from penjing.resume import go_on, identity, keep
from penjing.steps.grown import grown
from penjing.steps.int8 import int8
from penjing.steps.order import ordered
from penjing.steps.state import Run, State
from penjing.steps.tutor import introduce
from penjing.sweep import SHARES, Frontier, shares_of, swept
from penjing.tracking.tracker import Tracker
from penjing.tracking.tracker import refuse_impossible as refuse_tracker
from penjing.workers import Workers


@dataclass(frozen=True, eq=False)
class Result:
    """What a run returns: the smaller ``model``, and ``results``, plain data that tells everything about it.

    ``folder`` holds ``report.html``, ``results.json``, the bundle ``model.penjing`` and the exported ``files``, by
    name, in order; a temporary one goes with the result.
    """

    model: nn.Module
    results: Mapping[str, Any]
    folder: Path
    files: Mapping[str, Path] = field(default_factory=dict)

    def export(self, path: str | Path) -> Path:
        """Copy the ONNX file exported last.

        Raises: PlanError when the steps exported none; PenjingError when it cannot be written.
        """
        if not self.files:
            raise PlanError("This run exported nothing; put the step export at the end of its steps.")
        return write_whole(path, list(self.files.values())[-1].read_bytes())

    def save(self, path: str | Path) -> Path:
        """Write the network as a bundle, which ``penjing.load`` reads.

        Raises: BundleError when it cannot be written.
        """
        return bundle.copied(self.folder / bundle.BUNDLE, path)

    def report(self, path: str | Path) -> Path:
        """Copy the report.

        Raises: PenjingError when it cannot be written.
        """
        return write_whole(path, (self.folder / REPORT).read_bytes())


def compress(
    model: nn.Module,
    data: Any,
    budget: Mapping[str, Any] | str,
    *,
    epochs: int = EPOCHS,
    lr: float = LR,
    criterion: Any = CRITERION,
    allocator: Any = ALLOCATOR,
    method: Any = None,
    references: Sequence[str] = (),
    **options: Any,
) -> Result:
    """Cut a trained CNN down to a budget, recover it, export it and measure the file.

    ``budget`` bounds costs, absolute with units or relative to the original: ``{"latency": "0.6x", "params": 3e5}``.
    ``epochs`` of fine-tuning, taught by the original or by a ``teacher``, follow the cut; zero leaves it at closed-form
    recovery.
    ``method`` takes the place of all these: a whole published method, such as ``"han"``, with its own training.
    Further options are those of ``run``.

    Raises: Infeasible when nothing reaches the budget, Missed when the exported file misses it; PenjingError for
    everything a user can mend.
    """
    steps = usual_steps(epochs, lr, criterion, allocator, method)
    return run(model, data, steps, budget, references=references, **options)


def run(
    model: nn.Module,
    data: Any,
    steps: Sequence[Any],
    budget: Mapping[str, Any] | str | None = None,
    *,
    folder: str | Path | None = None,
    example: Any = None,
    target: Any = None,
    seed: int = 0,
    threads: int | None = None,
    batch: int | None = None,
    references: Sequence[str] = (),
    teacher: nn.Module | None = None,
    command: str = "",
    recipe: str = "",
    builder: str = "",
    started: Sequence[str] = (),
    workers: int | str = 0,
    timeout: float = 600.0,
    track: str | None = None,
) -> Result:
    """Run steps on a copy of ``model`` and report; the model given is not touched.

    ``data`` is what ``penjing.data.load`` takes, a ``Data``, (train, test) or (train, val, test) as datasets or
    loaders, a single one of pictures without labels, or None. ``folder`` receives the results (a temporary one by
    default) once all are there, also those of a file that misses its budget; a run that ends earlier leaves the folder
    as it was. One that is interrupted or killed leaves ``unfinished`` in its folder, and the same call goes on from
    there, to the same result. ``example`` is an input batch of two, taken from the data by default. ``target`` is
    what the network is made for: a preset's name, a YAML file, or what ``penjing.targets.find`` returns, by default
    ONNX Runtime on this machine; it tells what the budget may bound. ``threads`` and ``batch`` say how latency is
    measured, and of how many samples a model of the hardware tells the costs, by default as the target does.
    ``teacher`` is a trained network, of any architecture, that teaches in the original's place wherever a step learns
    from one. ``references`` adds rows to the table: ``"random"`` (the same widths, units chosen at random, the same
    recovery) and ``"scratch"`` (the same widths, trained from new weights for as many epochs as the steps train).
    ``command`` and ``recipe`` are shown in the report; ``builder``, as ``package.module:function``, goes into the
    bundle, to make the network by when it is loaded; ``started`` is what ``penjing resume`` starts again. ``track``
    tells ``"tensorboard"`` or ``"mlflow"`` of the run, see ``penjing.tracking``.

    Plans that an allocator tries are measured by ``workers``: so many processes (0: this one), or a Ray cluster:
    ``"ray"`` starts one here, ``"ray:4"`` with four workers, an address joins one. The result does not depend on it.
    ``timeout`` is the number of seconds after which a worker that does not answer is killed and its plan given to
    another. Ctrl-C ends a search with the best so far and the run goes on with that; once more, and the run is left.

    Raises: Missed when the exported file misses the budget; ResumeError when the folder holds another unfinished run,
    or another process works in it; PenjingError for everything a user can mend.
    """
    made_for, threads, batch = target_of(target, threads, batch)
    crew = Workers.of(workers, timeout)
    refuse_tracker(track, folder)
    todo, wanted, start = begin(model, data, steps, budget, made_for, example, seed, references, teacher)
    original, data = start.original, start.data
    place = Path(tempfile.mkdtemp(prefix="penjing-")) if folder is None else Path(folder)
    try:
        which: dict[str, Any] = {}
        if folder is not None:
            options = {"budget": wanted, "seed": seed, "threads": threads, "batch": batch, "references": references,
                       "target": made_for}  # fmt: skip
            which = identity(original, data, todo, options, start.tutor)
        with unfinished(place, which, started) as hidden:
            book = Run(hidden, wanted, seed, threads, batch, command, recipe, workers=crew,
                       target=made_for, resumable=folder is not None)  # fmt: skip
            if book.resumable:
                book.journal = Journal(hidden / JOURNAL)
            if data is not None:
                book.made["reads before"] = data.test_reads - book.journal.count(READ)
            with Tracker.opened(track, place, hidden).closing() as tracker:
                tracker.settings(_settings(original, data, todo, book))
                try:
                    with console.listening(tracker.hear):
                        state, missed = _through(todo, start, book, tracker)
                    beside = [] if missed else [make(name, state, book, todo) for name in references]
                    results = gather(state, book, beside)
                finally:
                    book.close()
                _write(hidden, state, results, builder)
                tracker.finish(results, [*state.files.values(), hidden / REPORT, hidden / RESULTS])
            publish(hidden, place)
        if missed is not None:
            where = "" if folder is None else f" What was reached lies in {place}."
            raise Missed(f"{missed}{where}", missed.best)
    except BaseException:
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)
        raise
    result = Result(state.model, results, place, {name: place / path.name for name, path in state.files.items()})
    if folder is None:
        weakref.finalize(result, shutil.rmtree, place, ignore_errors=True)
    return result


def preview(
    model: nn.Module,
    data: Any,
    steps: Sequence[Any] | None = None,
    budget: Mapping[str, Any] | str | None = None,
    *,
    example: Any = None,
    target: Any = None,
    seed: int = 0,
    threads: int | None = None,
    batch: int | None = None,
    references: Sequence[str] = (),
    teacher: nn.Module | None = None,
    workers: int | str = 0,
    timeout: float = 600.0,
) -> Preview:
    """Choose what the first cut of a run would take away, and leave it at that: a dry run.

    The network is traced, its units are scored, and a plan is chosen and proved. Nothing is trained, no cut network is
    exported, no folder is written, and the test set is not read. Options are those of ``run``; without ``steps`` they
    are those of ``compress``. Print what is returned, or read its ``facts``.

    Raises: Infeasible when the budget cannot be met; PenjingError for everything a user can mend.
    """
    made_for, threads, batch = target_of(target, threads, batch)
    steps = usual_steps() if steps is None else steps
    crew = Workers.of(workers, timeout)
    todo, wanted, start = begin(model, data, steps, budget, made_for, example, seed, references, teacher)
    with tempfile.TemporaryDirectory(prefix="penjing-") as scratch:
        return previewed(todo, start, Run(Path(scratch), wanted, seed, threads, batch, workers=crew, target=made_for))


def frontier(
    model: nn.Module,
    data: Any,
    cost: str = "latency",
    shares: Sequence[Any] = SHARES,
    *,
    epochs: int = 0,
    lr: float = LR,
    criterion: Any = CRITERION,
    allocator: Any = ALLOCATOR,
    folder: str | Path | None = None,
    example: Any = None,
    target: Any = None,
    seed: int = 0,
    threads: int | None = None,
    batch: int | None = None,
    teacher: nn.Module | None = None,
    workers: int | str = 0,
    timeout: float = 600.0,
    started: Sequence[str] = (),
) -> Frontier:
    """Cut a network to one share of a cost after the other and return the curve of cost against accuracy.

    ``shares`` are of the original's ``cost``. Each cut is recovered without training, then with ``epochs`` of it, and
    judged on validation; test pictures are not read. What does not depend on the budget is found out once. ``folder``
    receives ``frontier.json`` and ``frontier.svg``, and lets a sweep that was killed go on. Further options are those
    of ``run``, ``started`` among them. Print what is returned, or read its points.

    Raises: Infeasible when no share can be reached; PenjingError for everything a user can mend.
    """
    made_for, threads, batch = target_of(target, threads, batch)
    crew = Workers.of(workers, timeout)
    asked_for = shares_of(cost, shares)
    cut, *recover = ordered(usual_steps(epochs, lr, criterion, allocator)[:-2])
    todo, wanted, start = begin(model, data, [cut, *recover], {cost: asked_for[0]}, made_for, example, seed,
                               teacher=teacher)  # fmt: skip
    place = Path(tempfile.mkdtemp(prefix="penjing-")) if folder is None else Path(folder)
    try:
        options = {"frontier": [cost, *asked_for], "seed": seed, "threads": threads, "batch": batch, "target": made_for}
        with unfinished(place, identity(start.original, start.data, todo, options, start.tutor), started) as hidden:
            run_ = Run(hidden, wanted, seed, threads, batch, journal=Journal(hidden / JOURNAL), workers=crew,
                       target=made_for)  # fmt: skip
            try:
                found = swept(cut, recover, cost, asked_for, start, run_)
            finally:
                run_.close()
            write_whole(place / "frontier.svg", found.svg().encode())
            write_whole(place / "frontier.json", json.dumps(found.to_json(), indent=1).encode())
    finally:
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)
    return found


def explain(folder: str | Path) -> Explanation:
    """Say why the network of a run is not faster: where its time goes, what holds each layer, and what would help.

    ``folder`` is a run's. Print what is returned, or read its ``summary``, ``spending``, ``causes`` and ``remedies``.

    Raises: RecipeError when the folder holds no results, or such as do not tell.
    """
    return explained(read_results(Path(folder)))


def _settings(original: nn.Module, data: Data | None, steps: Sequence[Any], book: Run) -> dict[str, Any]:
    """Return what a tracker shows as the parameters of the run."""
    facts: dict[str, Any] = {"network": type(original).__name__, "data": data.name if data else "no data"}
    facts |= {"target": book.target.name, "seed": book.seed}
    facts |= {"threads": book.threads, "batch": book.batch, "penjing": penjing.__version__}
    return facts | {"command": book.command, "budget": book.budget, "steps": told(list(steps))}


def _write(folder: Path, state: State, results: Mapping[str, Any], builder: str) -> None:
    """Write what a finished run shows beside its files, with the sizes that only these tell."""
    shapes = [list(x.shape[1:]) for x in state.example[0] if isinstance(x, Tensor)]
    facts: dict[str, Any] = {key: results.get(key) for key in ("rows", "budget", "validation")}
    place = bundle.write(folder / bundle.BUNDLE, state.model, builder=builder, plans=state.plans, inputs=shapes,
                         facts=facts, finished=True)  # fmt: skip
    found = sizes.beside(place, state.original)
    for row in results["rows"]:
        row |= found.get(row["name"], {})
    write_whole(folder / RESULTS, json.dumps(results, indent=1, default=float).encode())
    write_report(results, folder / REPORT)


def _remarks(original: nn.Module, inputs: tuple[Any, ...], data: Data | None) -> list[str]:
    with torch.no_grad():
        outputs = original(*inputs)
    count = len([leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)])
    if count < 2 or data is None or not data.labelled:
        return []
    return [f"The model returns {count} tensors: the logits alone are trained and judged, all are exported and proved."]


def _through(steps: Sequence[Any], state: State, book: Run, tracker: Tracker) -> tuple[State, Missed | None]:
    """Take the state through the steps, with the validation accuracy before and after; stop at a missed budget.

    Steps that an earlier process has done are not done again.
    """
    measured = [build("step", "evaluate")] if state.data is not None else []
    todo = [*measured, *steps, *measured]
    book.int8 = next((step for step in steps if isinstance(step, int8)), None)
    names = [f"{i:02}-{type(step).__name__.rstrip('_')}" for i, step in enumerate(todo, 1)]
    state, done = go_on(state, book, names)
    tracker.catch_up(book.book)
    if not done:
        book.note("remarks", *_remarks(state.original, state.example[0], state.data))
        book.note("remarks", *back_to_back(book.budget, book.target))
        book.note("steps", *map(told, steps))
        introduce(state, book)
    if book.journal.count(BEGUN):
        after = (
            f"after step {done} of {len(todo)}, {names[done - 1].partition('-')[2]}" if done else "with the first step"
        )
        console.remark(f"Going on {after}.")
    book.journal.note(BEGUN, steps=names, done=done)
    missed = None
    for name, step in zip(names[done:], todo[done:], strict=True):
        if missed is not None and step not in measured:
            continue
        book.at = name
        try:
            state = step(grown(state, book, step), book)
        except Missed as error:
            missed = error
        if missed is None:  # or a run that goes on would not know of the miss
            keep(state, book)
    return state, missed


def inspect(model: nn.Module, example: Any) -> Graph:
    """Trace a model and return its graph: layers, sites, and what is pinned and why; the model is not touched.

    Raises: TraceError when it cannot be traced, PlanError when it runs from packed weights.
    """
    refuse_packed(model)
    return trace(plain(model).cpu(), inputs_of(example, None))
