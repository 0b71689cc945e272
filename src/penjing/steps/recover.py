"""Recover: bring accuracy back after a change, without training or with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from torch import nn

from penjing.core import console
from penjing.core.errors import PlanError
from penjing.core.protocols import Zeroing
from penjing.core.registry import build, register
from penjing.core.types import Kept
from penjing.data.data import Data
from penjing.graph.graph import Graph
from penjing.graph.trace import trace
from penjing.steps.state import Run, State
from penjing.training.evaluate import evaluate, near_chance
from penjing.training.follow import distance
from penjing.training.loop import fit
from penjing.training.options import Options
from penjing.training.recalibrate import recalibrate as recalibrate_norms
from penjing.training.reconstruct import reconstruct as refit_layers

GUESSING = (
    "On validation pictures the original is hardly better than guessing: are its weights loaded, and do the "
    "normalisation of the pictures and the order of the classes fit it?"
)


def _some(step: str, images: int) -> None:
    if isinstance(images, bool) or not isinstance(images, int) or images < 1:
        raise PlanError(f"{step}: images must be a whole number, 1 or more; got {images!r}.")


def _pictures(images: int, data: Data) -> str:
    return f"{min(images, len(data.train)):,} pictures"


@register("step")
@dataclass(frozen=True)
class recalibrate:  # noqa: N801  (registered under its own name)
    """Refresh batch-norm statistics on ``images`` unlabelled training pictures."""

    images: int = 1024

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        _some("recalibrate", self.images)

    def __call__(self, state: State, run: Run) -> State:
        """Return the state with a recalibrated model."""
        data = state.data_for("recalibrate")
        with run.stage("recalibrate", _pictures(self.images, data)):
            model = state.copy_model()
            recalibrate_norms(model, data.calibration(self.images, run.seed, size=128))
        return state.with_model(model)


@register("step")
@dataclass(frozen=True)
class reconstruct:  # noqa: N801  (registered under its own name)
    """Refit every layer, in least squares on ``images`` unlabelled training pictures, to what the original computes.

    No training: one regression a layer, in the order of execution (``penjing.training.reconstruct``). ``ridge`` holds
    the weights to where the cut left them, as a share of the mean power of what a layer reads.
    """

    images: int = 1024
    ridge: float = 1e-2

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        _some("reconstruct", self.images)
        if not 0 <= self.ridge < float("inf"):
            raise PlanError(f"reconstruct: ridge is a share of what a layer reads, 0 or more; got {self.ridge}.")

    def __call__(self, state: State, run: Run) -> State:
        """Return the state with a refitted model."""
        data = state.data_for("reconstruct")
        with run.stage("reconstruct", _pictures(self.images, data)) as said:
            model = state.copy_model()
            graph = trace(state.original, *state.example, proof=False)
            batches = data.calibration(self.images, run.seed, size=128)
            refitted = refit_layers(
                state.original, model, graph, _still_there(state, graph), batches, ridge=self.ridge, seed=run.seed
            )
            said.append(f"{len(refitted)} of {len(graph.layers)} layers refitted")
        return state.with_model(model)


def _still_there(state: State, graph: Graph) -> dict[str, Kept]:
    """Return what the cuts so far, one after the other, have left of each site of the original.

    Raises: PlanError for a site that only an earlier cut made.
    """
    kept: dict[str, Kept] = {}
    for plan in state.plans:
        for name, units in plan.of_rewrite("channels").items():
            kept[name] = kept.get(name, np.arange(graph.site(name).size))[units]
    return kept


@register("step")
@dataclass(frozen=True)
class train(Options):  # noqa: N801  (registered under its own name)
    """Fine-tune on the training split, by default taught by the original network.

    The default ``terms`` are its soft targets and hints, or, where pictures have no class, its outputs and hints.
    Options are those of ``penjing.training.options.Options``. Zeros that a rewrite left are held.
    Validation accuracy is told after each epoch; test is never read.
    """

    epochs: int = 10
    terms: tuple[Any, ...] | None = None

    def __call__(self, state: State, run: Run) -> State:
        """Return the state with a trained model."""
        data = state.data_for("train")
        taught = ("soft_targets" if data.labelled else "outputs", "hints")
        terms = [build("term", term) for term in (taught if self.terms is None else self.terms)]
        if any(isinstance(build("rewrite", name), Zeroing) for plan in state.plans for name in plan.rewrites()):
            terms.append(build("term", "hold_zeros"))
        recipe = Options(**{f.name: getattr(self, f.name) for f in fields(Options)})
        with run.stage("train", f"{self.epochs} epochs") as said:
            model = state.copy_model()
            history = fit(
                model,
                data.train,
                data.val if data.labelled else None,
                recipe,
                terms=terms,
                seed=run.seed,
                teacher=state.original,
                on_epoch=lambda row: self._tell(row, run),
                checkpoint=run.checkpoint(),
            )
            run.note("training", *history.rows)
            told = {"terms": [repr(term) for term in terms], "precision": history.precision, "device": history.device}
            run.note("trained", told | asdict(recipe))
            if history.stopped:
                stopped = f"stopped by hand after {len(history.rows)} of {self.epochs} epochs"
                run.note("stopped", stopped)
                what = f"The training was {stopped}."
                run.note("remarks", what)
                console.remark(f"{what} The run goes on with that.")
            if data.labelled:
                said.append(f"validation {history.rows[history.kept - 1]['val_accuracy']:.2f} %")
            elif (away := self._led_away(state, model, data)) is not None:
                run.note("remarks", away)
                console.remark(away)
                said.append("it led away from the original, so the network before it goes on")
                return state
        return state.with_model(model)

    def _led_away(self, state: State, model: nn.Module, data: Data) -> str | None:
        """Tell whether training without any labels ended further from the original than it began, and how far."""
        if next(iter(data.train.batches(1)))[1] is not None:
            return None
        before, after = (distance(m, state.original, data.val) for m in (state.model, model))
        if after <= before:
            return None
        return (
            f"Training led away from the original: outputs differed by {before:.1f} % before, {after:.1f} % after, "
            f"so the network before it is kept. Try lr = {self.lr / 10:g}, a smaller batch than {self.batch}, or adamw."
        )

    def _tell(self, row: Mapping[str, float | int | None], run: Run) -> None:
        in_run = len(run.noted("training")) + int(row["epoch"] or 0)
        console.emit("epoch", step=run.at, epochs=self.epochs, in_run=in_run, **row)
        if console.watched():
            accuracy = "" if row["val_accuracy"] is None else f", validation {row['val_accuracy']:.2f} %"
            loss = f"loss {row['loss']:.4f}{accuracy}, {row['seconds']:.0f} s"
            console.say(f"  epoch {row['epoch']} of {self.epochs}: {loss}")


@register("step")
@dataclass(frozen=True)
class evaluate_:  # noqa: N801  (registered under its own name)
    """Tell the accuracy on the validation split; without classes, how far the outputs are from the original's."""

    def __call__(self, state: State, run: Run) -> State:
        """Return the state unchanged."""
        with run.stage("evaluate") as said:
            data = state.data_for("evaluate")
            if not data.labelled:
                apart = distance(state.model, state.original, data.val)
                run.note("distance", apart)
                said.append(f"outputs differ by {apart:.2f} % from the original's on validation pictures")
                return state
            found = evaluate(state.model, data.val)
            if not run.noted("validation") and near_chance(found, data.num_classes):
                run.note("remarks", GUESSING)
                console.remark(f"Beware: {GUESSING}")
            run.note("validation", found.accuracy)
            said.append(f"validation {found.accuracy:.2f} %")
        return state
