"""How often the model is wrong once it has been trained for a little while."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Self

from torch import nn

from penjing.core.errors import Diverged, RecipeError
from penjing.core.protocols import Draft, Taught
from penjing.core.registry import build, register
from penjing.costs.error import error
from penjing.data.data import Data
from penjing.data.divide import balance_of, pick
from penjing.training.loop import fit
from penjing.training.options import Options, check, check_values


@register("cost")
@dataclass(frozen=True)
class tuned_error(error):  # noqa: N801 - the name a recipe writes
    """Measure the top-1 error on the validation split after a short training.

    Each plan's network is trained for ``epochs`` on ``train_images`` pictures of the training split (all of them by
    default), class-balanced, in batches of ``train_batch``, with a peak rate of ``lr``; ``terms`` may have the original
    teach it, and weights that the plan set to zero stay zero. The same pictures come in the same order for each plan,
    so that plans are compared and not their luck. A training that diverges is judged by what it was at the start of
    that epoch. Layers are refitted before it and batch norm is refreshed after it, where the options of the cost
    ``error`` say so. A trial takes as long as its training does: a search of hundreds wants ``--workers``.

    Units: %.
    Raises: RecipeError when there is nothing to measure or to train on.
    Paper: Lin et al., Channel Pruning via Automatic Structure Search, IJCAI 2020, the fitness: two epochs.
    Differs: validation pictures, where the released code counts those of the test set; a warm-up and a cosine.
    """

    epochs: int = 2
    lr: float = 0.01
    train_batch: int = 128
    train_images: int | None = None
    terms: tuple[Any, ...] = ()
    train: Any = None
    teacher: Any = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: RecipeError or TrainError naming the option.
        """
        super().__post_init__()
        check_values(self._recipe)
        if self.train_images is not None and self.train_images < 2:
            raise RecipeError(f"tuned_error: train_images must be 2 or more; got {self.train_images}.")

    @property
    def _recipe(self) -> Options:
        # On a CPU, half precision would round otherwise on another machine.
        return Options(epochs=self.epochs, lr=self.lr, batch=self.train_batch, precision="32-true")

    def on(self, data: Data, seed: int) -> Self:
        """Return the same for a data set: trained on its training pictures, measured on its validation pictures.

        Raises: TrainError when there are too few to train on.
        """
        train = data.train
        if self.train_images is not None and self.train_images < len(train):
            balance = balance_of(train.labels, len(train))
            train = train.subset(pick(balance, self.train_images, seed, "cost/tuned_error"))
        check(self._recipe, len(train), validated=False)
        return replace(super().on(data, seed), train=train)

    def beside(self, original: nn.Module) -> Self:
        """Return the cost whose networks are taught by this one, where a term takes a teacher."""
        taught = any(isinstance(build("term", term), Taught) for term in self.terms)
        return replace(self, teacher=original) if taught else self

    def _model(self, draft: Draft) -> nn.Module:
        """Build the draft's model and train it.

        Raises: KeyboardInterrupt, which training itself would take as its end.
        """
        if self.train is None:
            raise RecipeError("The cost tuned_error needs training data; give the run a data set, or train=....")
        model = self._refitted(draft)
        terms = [build("term", term) for term in self.terms]
        if draft.nonzero < draft.parameters:
            terms.append(build("term", "hold_zeros"))
        with suppress(Diverged):
            told = fit(
                model, self.train, None, self._recipe, terms=terms, seed=self.seed, teacher=self.teacher,
                progress=lambda *_: None,
            )  # fmt: skip
            if told.stopped:
                raise KeyboardInterrupt
        self._refresh(model)
        return model
