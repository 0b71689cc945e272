"""How often the model is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

from penjing.core.errors import RecipeError
from penjing.core.registry import register
from penjing.core.types import Draft
from penjing.training.evaluate import evaluate
from penjing.training.recalibrate import recalibrate as refresh


@register("cost")
@dataclass(frozen=True)
class error:  # noqa: N801 - the name a budget writes
    """Measure the top-1 error on the validation split.

    ``split`` has ``batches(size)``; the step that searches fills it in. With ``recalibrate`` the statistics of batch
    norm are taken anew from so many batches before, of ``calibration`` if given (training pictures, best), else of
    ``split`` itself; labels are not used for that.

    Units: %.
    Raises: RecipeError when there is no split.
    """

    split: Any = None
    recalibrate: int = 0
    calibration: Any = None
    batch: int = 256

    unit = "%"
    cheap = False

    def __call__(self, draft: Draft) -> float:
        """Build the draft's model and return its error."""
        if self.split is None:
            raise RecipeError("The cost error needs validation data; give the run a data set, or error(split=...).")
        model = draft.model()
        if self.recalibrate:
            source = self.split if self.calibration is None else self.calibration
            refresh(model, islice(source.batches(self.batch), self.recalibrate))
        return float(evaluate(model, self.split, batch=self.batch).error)
