"""What costs that show a network pictures have in common: which pictures, and batch norm refreshed before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, ClassVar, Self

from torch import nn

from penjing.core.errors import RecipeError
from penjing.core.protocols import Draft
from penjing.data.data import Data
from penjing.data.divide import balance_of, pick
from penjing.training.recalibrate import recalibrate as refresh


@dataclass(frozen=True)
class OnPictures:
    """A cost of what a network answers to the pictures of ``split``, which has ``batches(size)``; ``on`` fills it in.

    With ``recalibrate`` the statistics of batch norm are taken anew from so many batches before, of ``calibration`` if
    given (training pictures, best), else of ``split`` itself; labels are not used for that. Of a data set, at most
    ``images`` validation pictures are taken, class-balanced where there are labels.
    """

    split: Any = None
    recalibrate: int = 0
    calibration: Any = None
    batch: int = 256
    images: int | None = None

    cheap: ClassVar[bool] = False

    def on(self, data: Data, seed: int) -> Self:
        """Return the same for the validation pictures of a data set, recalibrated on training pictures."""
        val = data.val
        if self.images is not None and self.images < len(val):
            val = val.subset(pick(balance_of(val.labels, len(val)), self.images, seed, "cost/error"))
        return replace(self, split=val, calibration=data.calibration_split(self.recalibrate * self.batch, seed))

    def _need_pictures(self) -> None:
        """Refuse to measure on nothing.

        Raises: RecipeError naming the cost.
        """
        if self.split is None:
            name = type(self).__name__
            raise RecipeError(f"The cost {name} needs validation data; give the run a data set, or {name}(split=...).")

    def _model(self, draft: Draft) -> nn.Module:
        """Build the draft's model and refresh its batch norm, if asked."""
        model = draft.model()
        if self.recalibrate:
            source = self.split if self.calibration is None else self.calibration
            refresh(model, islice(source.batches(self.batch), self.recalibrate))
        return model
