"""Learn how a teacher ranks classes and samples, and not how sure it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core.errors import TrainError
from penjing.core.registry import register
from penjing.terms.logits import both, rows
from penjing.terms.teacher import Teacher


@register("term")
@dataclass(frozen=True)
class dist:  # noqa: N801 - the name a recipe writes
    """Make the class probabilities correlate with a teacher's, of each sample and of each class over the batch.

    Adds ``T² (beta (1 - ρ̄ of rows) + gamma (1 - ρ̄ of columns))``, ρ being Pearson's correlation of the model's
    softened probabilities [samples, classes] with the teacher's. A student need not become as sure as its teacher,
    which asks too much of a small student of a strong one. The task loss keeps its weight; labels are not used. Columns
    need a batch: of one sample alone they count nothing. Temperature 1 is the paper's for ImageNet, 4 for pictures of
    32 x 32.

    Raises: TrainError without a teacher, or when the teacher has other classes.
    Paper: Huang, You, Wang, Qian, Xu, Knowledge Distillation from A Stronger Teacher, NeurIPS 2022, eq. 6 to 10.
    """

    beta: float = 2.0
    gamma: float = 2.0
    temperature: float = 1.0
    teacher: Any = field(default=None, repr=False, compare=False)
    _teacher: Teacher = field(init=False, repr=False, compare=False, default_factory=lambda: Teacher("dist"))

    def teach(self, teacher: nn.Module) -> None:
        """Take this teacher until ``detach``, unless the options name one."""
        self._teacher.lend(teacher)

    def attach(self, model: nn.Module) -> list[nn.Parameter]:
        """Put the teacher into evaluation mode; there are no parameters to train."""
        if not (all(math.isfinite(w) and w >= 0 for w in (self.beta, self.gamma)) and self.temperature > 0):
            raise TrainError(
                "dist needs beta and gamma of 0 or more and a temperature above 0; "
                f"got {self.beta}, {self.gamma} and {self.temperature}."
            )
        self._teacher.hire(self.teacher, model)
        return []

    def __call__(self, x: Tensor, outputs: Any, y: Tensor | None) -> Tensor:
        """Return the weighted sum of what is missing from full correlation; a scalar.

        Shapes: logits [n, classes] or [n, classes, h, w], where every place is a sample → scalar.
        """
        own, theirs = (
            F.softmax(rows(logits) / self.temperature, 1) for logits in both("dist", outputs, self._teacher(x))
        )
        loss = self.beta * uncorrelated(own, theirs)
        if len(own) > 1:
            loss = loss + self.gamma * uncorrelated(own.T, theirs.T)
        return (self.temperature**2 * loss).float()

    def after_step(self) -> None:
        """Do nothing."""

    def detach(self) -> None:
        """Give the teacher its modes and its device back and forget a lent one."""
        self._teacher.release()


def uncorrelated(own: Tensor, theirs: Tensor) -> Tensor:
    """Return one less the mean over rows of Pearson's correlation, a scalar; rows that do not vary have none.

    Shapes: [n, m] both.
    """
    s, t = (values - values.mean(1, keepdim=True) for values in (own, theirs))
    return 1 - F.cosine_similarity(s, t, dim=1, eps=1e-8).mean()
