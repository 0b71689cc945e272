"""How far the answers of a cut network are from the original's, without labels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from penjing.core.errors import RecipeError
from penjing.core.modes import modes_kept
from penjing.core.outputs import answers
from penjing.core.protocols import Draft
from penjing.core.registry import register
from penjing.costs.pictures import OnPictures
from penjing.data.data import Data
from penjing.training.state import device_of


@register("cost")
@dataclass(frozen=True)
class divergence(OnPictures):  # noqa: N801 - the name a recipe writes
    """Measure how far a network's answers are from the original's: the mean KL divergence of its classes.

    It moves long before the first picture changes its class, and needs no labels. ``beside`` takes the original, whose
    answers are worked out once. Answers that are not logits, a row of two or more a picture, count as
    ``‖s - t‖² / ‖t‖²`` over all pictures, the mean over what ``penjing.core.outputs.answers`` finds. Pictures and batch
    norm are as for the cost ``error``.

    Units: nats.
    Raises: RecipeError when there is no split, or nothing to compare with.
    Paper: Hinton et al., Distilling the Knowledge in a Neural Network, 2015, section 2, at temperature 1.
    """

    theirs: Any = field(default=None, repr=False, compare=False)

    unit = "nats"

    def fits(self, data: Data) -> bool:
        """Tell that any pictures do."""
        return True

    def beside(self, original: nn.Module) -> Self:
        """Return the cost that compares with this network.

        Raises: RecipeError when there is no split.
        """
        self._need_pictures()
        return replace(self, theirs=self._answers(original))

    def __call__(self, draft: Draft) -> float:
        """Build the draft's model and return its distance."""
        self._need_pictures()
        if self.theirs is None:
            raise RecipeError("The cost divergence needs the original to compare with; give it with beside(original).")
        own = self._answers(self._model(draft))
        shapes = [[list(tensor.shape) for tensor in tensors] for tensors in (own, self.theirs)]
        if shapes[0] != shapes[1]:
            raise RecipeError(
                f"The cost divergence compares answers of one shape; the cut network's are {shapes[0]}, the original's "
                f"{shapes[1]}."
            )
        if len(own) == 1 and own[0].ndim == 2 and own[0].shape[1] > 1:
            p, q = self.theirs[0].double().log_softmax(1), own[0].double().log_softmax(1)
            return float((p.exp() * (p - q)).sum(1).mean().clamp_min(0))
        pairs = [(s.double(), t.double()) for s, t in zip(own, self.theirs, strict=True)]
        apart = [(s - t).square().sum() / t.square().sum().clamp_min(1e-30) for s, t in pairs]
        return float(torch.stack(apart).mean())

    def _answers(self, model: nn.Module) -> list[Tensor]:
        """Return what a network answers to all pictures, in evaluation mode; modes are restored."""
        found: list[list[Tensor]] = []
        with modes_kept(model), torch.inference_mode():
            model.eval()
            for x, _ in self.split.batches(self.batch):
                found.append([tensor.cpu() for tensor in answers(model(x.to(device_of(model))))])
        if not found:
            raise RecipeError("The cost divergence has nothing to compare on: the split has 0 samples.")
        return [torch.cat(tensors) for tensors in zip(*found, strict=True)]
