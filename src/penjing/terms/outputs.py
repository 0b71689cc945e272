"""Learn from what a teacher returns, whatever that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from penjing.core.errors import TrainError
from penjing.core.outputs import answers
from penjing.core.registry import register
from penjing.terms.teacher import Teacher


@register("term")
@dataclass(frozen=True)
class outputs:  # noqa: N801 - the name a recipe writes
    """Pull what the network returns towards what the teacher returns; no classes and no labels are needed.

    Adds ``weight`` times the mean of ``‖s - t‖² / ‖t‖²`` over what ``penjing.core.outputs.answers`` finds: the logits,
    the map of a segmentation, all levels of a pyramid.

    Raises: TrainError without a teacher, or when the two return other shapes.
    Paper: Ba and Caruana, Do Deep Nets Really Need to be Deep?, NIPS 2014, section 2.2.
    Differs: each tensor relative to its own size, so that maps of different scales count alike.
    """

    weight: float = 1.0
    teacher: Any = field(default=None, repr=False, compare=False)
    _teacher: Teacher = field(init=False, repr=False, compare=False, default_factory=lambda: Teacher("outputs"))

    def teach(self, teacher: nn.Module) -> None:
        """Take this teacher until ``detach``, unless the options name one."""
        self._teacher.lend(teacher)

    def attach(self, model: nn.Module) -> list[nn.Parameter]:
        """Put the teacher into evaluation mode; there are no parameters to train."""
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise TrainError(f"outputs needs a weight of 0 or more; got {self.weight}.")
        self._teacher.hire(self.teacher, model)
        return []

    def __call__(self, x: Tensor, outputs: Any, y: Tensor | None) -> Tensor:
        """Return the weighted mean of relative squared distances; a scalar."""
        return self.weight * apart("outputs", answers(self._teacher(x)), answers(outputs))

    def after_step(self) -> None:
        """Do nothing."""

    def detach(self) -> None:
        """Give the teacher its modes and its device back and forget a lent one."""
        self._teacher.release()


def apart(term: str, theirs: Sequence[Tensor], own: Sequence[Tensor]) -> Tensor:
    """Return the mean over the tensors of ``‖s - t‖² / ‖t‖²``, a scalar.

    Raises: TrainError, naming the term, when the two have other shapes.
    """
    if [t.shape for t in theirs] != [s.shape for s in own]:
        shapes = [", ".join(str(list(t.shape)) for t in tensors) for tensors in (theirs, own)]
        raise TrainError(f"{term}: the teacher returns {shapes[0]} and the model {shapes[1]}; both must be alike.")
    loss = own[0].new_zeros((), dtype=own[0].float().dtype)
    for s, t in zip(own, theirs, strict=True):
        loss = loss + (s.float() - t.float()).square().sum() / t.float().square().sum().clamp(min=1e-12)
    return loss / len(own)
