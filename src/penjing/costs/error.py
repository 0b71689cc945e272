"""How often the model is wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from penjing.core.errors import RecipeError
from penjing.core.protocols import Draft
from penjing.core.registry import register
from penjing.data.data import Data
from penjing.data.divide import balance_of, pick
from penjing.training.evaluate import evaluate
from penjing.training.recalibrate import recalibrate as refresh


@register("cost")
@dataclass(frozen=True)
class error:  # noqa: N801 - the name a budget writes
    """Measure the top-1 error on the validation split.

    ``split`` has ``batches(size)``; ``on`` fills it in. With ``recalibrate`` the statistics of batch norm are taken
    anew from so many batches before, of ``calibration`` if given (training pictures, best), else of ``split`` itself;
    labels are not used for that. Of a data set, at most ``images`` validation pictures are taken, class-balanced.

    Units: %.
    Raises: RecipeError when there is no split.
    """

    split: Any = None
    recalibrate: int = 0
    calibration: Any = None
    batch: int = 256
    images: int | None = None

    unit = "%"
    cheap = False

    def fits(self, data: Data) -> bool:
        """Tell whether each picture has a class to be wrong about."""
        return data.labelled

    def on(self, data: Data, seed: int) -> error:
        """Return the same for the validation pictures of a data set, recalibrated on training pictures."""
        val = data.val
        if self.images is not None and self.images < len(val):
            val = val.subset(pick(balance_of(val.labels, len(val)), self.images, seed, "cost/error"))
        return replace(self, split=val, calibration=data.calibration_split(self.recalibrate * self.batch, seed))

    def __call__(self, draft: Draft) -> float:
        """Build the draft's model and return its error."""
        if self.split is None:
            raise RecipeError("The cost error needs validation data; give the run a data set, or error(split=...).")
        model = draft.model()
        if self.recalibrate:
            source = self.split if self.calibration is None else self.calibration
            refresh(model, islice(source.batches(self.batch), self.recalibrate))
        return float(evaluate(model, self.split, batch=self.batch).error)
