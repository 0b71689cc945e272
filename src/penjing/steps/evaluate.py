"""Say how good the network is on validation pictures."""

from __future__ import annotations

from dataclasses import dataclass

from penjing.core import console
from penjing.core.registry import register
from penjing.steps.state import Run, State
from penjing.training.evaluate import evaluate, near_chance
from penjing.training.follow import distance

GUESSING = (
    "On validation pictures the original is hardly better than guessing: are its weights loaded, and do the "
    "normalisation of the pictures and the order of the classes fit it?"
)
BEGINNER = (
    "The network as it came is hardly better than guessing, as one with new weights is: all that it knows in the end "
    "was learned from its teacher and the pictures."
)


@register("step")
@dataclass(frozen=True)
class evaluate_:  # noqa: N801  (registered under its own name)
    """Tell the accuracy on the validation split; without classes, how far the outputs are from the original's."""

    def __call__(self, state: State, run: Run) -> State:
        """Return the state unchanged."""
        with run.stage("evaluate") as said:
            data = state.data_for("evaluate")
            if not data.labelled:
                apart = distance(state.judged, state.original, data.val)
                run.note("distance", apart)
                said.append(f"outputs differ by {apart:.2f} % from the original's on validation pictures")
                return state
            found = evaluate(state.judged, data.val)
            if not run.noted("validation") and near_chance(found, data.num_classes):
                run.note("guesses", True)
                run.note("remarks", GUESSING if state.tutor is None else BEGINNER)
                console.remark(f"Beware: {GUESSING}" if state.tutor is None else BEGINNER)
            run.note("validation", found.accuracy)
            said.append(f"validation {found.accuracy:.2f} %")
        return state
