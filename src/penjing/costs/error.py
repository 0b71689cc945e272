"""How often the model is wrong."""

from __future__ import annotations

from dataclasses import dataclass

from penjing.core.protocols import Draft
from penjing.core.registry import register
from penjing.costs.pictures import OnPictures
from penjing.data.data import Data
from penjing.training.evaluate import evaluate


@register("cost")
@dataclass(frozen=True)
class error(OnPictures):  # noqa: N801 - the name a budget writes
    """Measure the top-1 error on the validation split.

    ``split`` has ``batches(size)``; ``on`` fills it in. With ``recalibrate`` the statistics of batch norm are taken
    anew from so many batches before, of ``calibration`` if given (training pictures, best), else of ``split`` itself;
    labels are not used for that. Of a data set, at most ``images`` validation pictures are taken, class-balanced.

    Units: %.
    Raises: RecipeError when there is no split.
    """

    unit = "%"

    def fits(self, data: Data) -> bool:
        """Tell whether each picture has a class to be wrong about."""
        return data.labelled

    def __call__(self, draft: Draft) -> float:
        """Build the draft's model and return its error."""
        self._need_pictures()
        return float(evaluate(self._model(draft), self.split, batch=self.batch).error)
