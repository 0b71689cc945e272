"""The original of a run that starts from new weights: what its first training makes of them."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from penjing.core import console
from penjing.exporting import bundle
from penjing.graph import form
from penjing.steps.check import check
from penjing.steps.evaluate import evaluate_
from penjing.steps.export import export
from penjing.steps.recalibrate import recalibrate
from penjing.steps.state import Run, State
from penjing.steps.train import train
from penjing.training.evaluate import evaluate, near_chance

FOLDER = "grown"
"""Where it is kept in the folder of a run that may go on."""

KEEPING: tuple[type, ...] = (evaluate_, train, recalibrate, export, check)
"""Steps that leave a network in the form that it has; what extends one of them, as ``lccl`` does, may not."""

TOLD = (
    "The network came with new weights. What training has made of them is the original from here on: layers are "
    "refitted to it, it teaches, and the result is held against it."
)


def grown(state: State, run: Run, step: Any) -> State:
    """Return the state before a step, with the trained network as the original where that one can only guess.

    The network as it came would be refitted to, and taught by, what knows nothing. It stays the original as long as
    steps only train, and where training has not led beyond guessing, or another plan came first.
    """
    has_learned = run.noted("guesses") and run.noted("trained")
    if not has_learned or type(step) in KEEPING or not _is_whole(state):
        return state
    data = state.labelled_for("evaluate")
    found = evaluate(state.model, data.val)
    if near_chance(found, data.num_classes):
        return state
    run.note("grown", found.accuracy)
    run.note("remarks", TOLD)
    console.remark(TOLD)
    run.book["validation"] = [found.accuracy]
    del run.book["guesses"]
    run.made.pop("original", None)
    if run.resumable:
        bundle.write(run.folder / FOLDER, state.model)
    return replace(state, original=copy.deepcopy(state.model).eval())


def grown_before(state: State, run: Run) -> State:
    """Return the state of a run that goes on, with the original that an earlier process had grown.

    Raises: BundleError when that cannot be read.
    """
    if not run.noted("grown"):
        return state
    return replace(state, original=bundle.load(run.folder / FOLDER, lambda: state.original).eval())


def _is_whole(state: State) -> bool:
    """Tell whether nothing but numbers has changed since the network came."""
    now, then = ({name: x.shape for name, x in form.tensors(net).items()} for net in (state.model, state.original))
    return not state.plans and now == then
