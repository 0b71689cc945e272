"""What costs that show a network pictures have in common: which pictures, and a network repaired before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, ClassVar, Self

from torch import nn

from penjing.core import console
from penjing.core.errors import RecipeError
from penjing.core.protocols import Draft
from penjing.data.data import Data
from penjing.data.divide import balance_of, pick
from penjing.graph.blocks import removed
from penjing.training.recalibrate import recalibrate as refresh
from penjing.training.reconstruct import reconstruct as refit

TOGETHER = 128
"""Pictures a batch when layers are refitted, as the step ``reconstruct`` does it."""


@dataclass(frozen=True)
class OnPictures:
    """A cost of what a network answers to the pictures of ``split``, which has ``batches(size)``; ``on`` fills it in.

    With ``reconstruct`` every layer is first refitted on so many pictures of ``samples``, as the step of that name does
    it, to what the network without the plan computes. With ``recalibrate`` the statistics of batch norm are then taken
    anew from so many batches of ``calibration``. Both are training pictures if given (best), else those of ``split``
    itself; labels are not used for that. Of a data set, at most ``images`` validation pictures are taken,
    class-balanced where there are labels. ``seed`` draws the positions that layers are refitted at.
    """

    split: Any = None
    recalibrate: int = 0
    calibration: Any = None
    batch: int = 256
    images: int | None = None
    reconstruct: int = 0
    samples: Any = None
    seed: int = 0

    cheap: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: RecipeError naming the option.
        """
        for name, least in (("recalibrate", 0), ("reconstruct", 0), ("batch", 1), ("images", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise RecipeError(f"{type(self).__name__}: {name} must be {least} or more; got {value}.")

    def on(self, data: Data, seed: int) -> Self:
        """Return the same for the validation pictures of a data set, repaired on training pictures."""
        val = data.val
        if self.images is not None and self.images < len(val):
            val = val.subset(pick(balance_of(val.labels, len(val)), self.images, seed, "cost/error"))
        calibration = data.calibration_split(self.recalibrate * self.batch, seed)
        samples = data.calibration_split(self.reconstruct, seed) if self.reconstruct else None
        return replace(self, split=val, calibration=calibration, samples=samples, seed=seed)

    def _need_pictures(self) -> None:
        """Refuse to measure on nothing.

        Raises: RecipeError naming the cost.
        """
        if self.split is None:
            name = type(self).__name__
            raise RecipeError(f"The cost {name} needs validation data; give the run a data set, or {name}(split=...).")

    def _model(self, draft: Draft) -> nn.Module:
        """Build the draft's model; refit its layers and refresh its batch norm, if asked."""
        model = self._refitted(draft)
        self._refresh(model)
        return model

    def _refitted(self, draft: Draft) -> nn.Module:
        model = draft.model()
        if self.reconstruct:
            source = self.split if self.samples is None else self.samples
            batches = [x for x, _ in islice(source.batches(TOGETHER), -(-self.reconstruct // TOGETHER))]
            kept, without = draft.plan.of_rewrite("channels"), removed(draft.graph, draft.plan)
            with console.quiet():  # a search has a bar of its own
                refit(draft.whole(), model, draft.graph, kept, batches, without=without, seed=self.seed)
        return model

    def _refresh(self, model: nn.Module) -> None:
        if self.recalibrate:
            source = self.split if self.calibration is None else self.calibration
            refresh(model, islice(source.batches(self.batch), self.recalibrate))
