"""Refresh batch norm after a change."""

from __future__ import annotations

from dataclasses import dataclass

from penjing.core.registry import register
from penjing.steps.pictures import need_some, told_count
from penjing.steps.state import Run, State
from penjing.training.recalibrate import recalibrate as recalibrate_norms


@register("step")
@dataclass(frozen=True)
class recalibrate:  # noqa: N801  (registered under its own name)
    """Refresh batch-norm statistics on ``images`` unlabelled training pictures."""

    images: int = 1024

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        need_some("recalibrate", self.images)

    def __call__(self, state: State, run: Run) -> State:
        """Return the state with a recalibrated model."""
        data = state.data_for("recalibrate")
        with run.stage("recalibrate", told_count(self.images, data)):
            model = state.copy_model()
            recalibrate_norms(model, data.calibration(self.images, run.seed, size=128))
        return state.with_model(model)
