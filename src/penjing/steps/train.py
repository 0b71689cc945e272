"""Train the network as it is then, by default taught by the original."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from torch import nn

from penjing.core import console
from penjing.core.protocols import Term, Zeroing
from penjing.core.registry import build, register
from penjing.data.data import Data
from penjing.steps.state import Run, State
from penjing.training.follow import distance
from penjing.training.loop import fit
from penjing.training.options import Options


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
        with run.stage("train", f"{self.epochs} epochs") as said:
            model = self.trained(state, run, said)
            if not data.labelled and (away := self._led_away(state, model, data)) is not None:
                run.note("remarks", away)
                console.remark(away)
                said.append("it led away from the original, so the network before it goes on")
                return state
        return state.with_model(model)

    def trained(self, state: State, run: Run, said: list[str], *more: Term) -> nn.Module:
        """Return a trained copy, with ``more`` terms beside those of the options, and write down how it went."""
        data = state.data_for("train")
        taught = ("soft_targets" if data.labelled else "outputs", "hints")
        terms = [*(build("term", term) for term in (taught if self.terms is None else self.terms)), *more]
        if any(isinstance(build("rewrite", name), Zeroing) for plan in state.plans for name in plan.rewrites()):
            terms.append(build("term", "hold_zeros"))
        recipe = Options(**{f.name: getattr(self, f.name) for f in fields(Options)})
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
        return model

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
