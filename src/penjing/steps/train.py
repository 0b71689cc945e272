"""Train the network as it is then, by default taught by the original, or by the teacher that the run was given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from penjing.core import console
from penjing.core.protocols import Term, Zeroing
from penjing.core.registry import build, register
from penjing.data.data import Data
from penjing.graph.quantized import quantized
from penjing.steps.filed import file_training, tell_epoch
from penjing.steps.state import Run, State
from penjing.steps.still_there import relate
from penjing.terms.rounding import Rounding
from penjing.training.follow import distance
from penjing.training.loop import fit
from penjing.training.options import Options


@register("step")
@dataclass(frozen=True)
class train(Options):  # noqa: N801  (registered under its own name)
    """Fine-tune on the training split, by default taught by the original network or by the run's ``teacher``.

    The default ``terms`` are its soft targets and hints, or, where pictures have no class, its outputs and hints. A
    teacher of the user's own gives no hints: they compare layers of one name, channel by channel, and its channels mean
    something else. ``attention_transfer`` and ``fitnets`` are for that. With ``views`` there are none either: answers
    that are written down have no layers. An original that is hardly better than guessing, as one with new weights is,
    teaches nobody by default.
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
                said.append(f"it led away from {self._whom(state)}, so the network before it goes on")
                return state
        return state.with_model(model)

    def trained(self, state: State, run: Run, said: list[str], *more: Term) -> nn.Module:
        """Return a trained copy, with ``more`` terms beside those of the options, and write down how it went."""
        data = state.data_for("train")
        terms = [
            *(build("term", term) for term in (self._taught(state, run) if self.terms is None else self.terms)),
            *more,
        ]
        if any(isinstance(build("rewrite", name), Zeroing) for plan in state.plans for name in plan.rewrites()):
            terms.append(build("term", "hold_zeros"))
        recipe = Options(**{f.name: getattr(self, f.name) for f in fields(Options)})
        model = state.copy_model()
        if quantized(model):
            terms.append(Rounding())
        relate(terms, state)
        history = fit(
            model,
            data.train,
            data.val if data.labelled else None,
            recipe,
            terms=terms,
            seed=run.seed,
            teacher=state.teacher,
            on_epoch=lambda row: self._tell(row, run),
            checkpoint=run.checkpoint(),
            answers=run.folder,
        )
        file_training(run, history, recipe, [repr(term) for term in terms])
        if data.labelled:
            said.append(f"validation {history.rows[history.kept - 1]['val_accuracy']:.2f} %")
        return model

    def _taught(self, state: State, run: Run) -> tuple[str, ...]:
        """Return the terms by default: none where the original, which would teach, can only guess itself."""
        if not state.data_for("train").labelled:
            return ("outputs",) if state.tutor is not None or self.views else ("outputs", "hints")
        if state.tutor is None and run.noted("guesses"):
            console.remark("The original can only guess and teaches nobody: labels alone, unless `terms` are given")
            return ()
        return ("soft_targets",) if state.tutor is not None or self.views else ("soft_targets", "hints")

    def _led_away(self, state: State, model: nn.Module, data: Data) -> str | None:
        """Tell whether training without any labels ended further from the teacher than it began, and how far."""
        if next(iter(data.train.batches(1)))[1] is not None:
            return None
        before, after = (distance(m, state.teacher, data.val) for m in (state.model, model))
        if after <= before:
            return None
        return (
            f"Training led away from {self._whom(state)}: outputs differed by {before:.1f} % before, {after:.1f} % "
            f"after, so the network before it is kept. Try lr = {self.lr / 10:g}, a smaller batch than {self.batch}, "
            "or adamw."
        )

    @staticmethod
    def _whom(state: State) -> str:
        return "the original" if state.tutor is None else "the teacher"

    def _tell(self, row: Mapping[str, float | int | None], run: Run) -> None:
        tell_epoch(row, run, self.epochs)
