"""Learn from a teacher's outputs, what it says of the target class apart from what it says of the others."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core.errors import TrainError
from penjing.core.registry import register
from penjing.terms.clock import Clock
from penjing.terms.logits import both, rows
from penjing.terms.teacher import Teacher


@register("term")
@dataclass(frozen=True)
class dkd:  # noqa: N801 - the name a recipe writes
    """Pull the class probabilities towards a teacher's, those of the other classes harder than that of the target.

    Adds ``T² (alpha KL(b_t ‖ b_s) + beta KL(p_t ‖ p_s))``, softened by the temperature: ``b`` are the probabilities of
    the target and of all others together, ``p`` those of the others among themselves. In ``soft_targets`` the second
    counts by what the teacher leaves to the others, next to nothing where it is sure; here it counts in full. The task
    loss keeps its weight. The target is the label, and where a sample has none the teacher's own first choice; of
    pictures that were blended (mixup) it is the label of the first. The term grows linearly to its full weight over the
    share ``warmup`` of the training.

    Raises: TrainError without a teacher, or when the teacher has other classes.
    Paper: Zhao, Cui, Song, Qiu, Liang, Decoupled Knowledge Distillation, CVPR 2022, eq. 6 and 7.
    Differs: ``beta`` is 8 in most of the paper's trainings of 240 epochs, 0.5 on ImageNet; 2 does less harm in a short
    one. The paper warms up over 20 of 240 epochs, epoch by epoch; here it is that share of any training, step by step.
    """

    alpha: float = 1.0
    beta: float = 2.0
    temperature: float = 4.0
    warmup: float = 1 / 12
    teacher: Any = field(default=None, repr=False, compare=False)
    _teacher: Teacher = field(init=False, repr=False, compare=False, default_factory=lambda: Teacher("dkd"))
    _clock: Clock = field(init=False, repr=False, compare=False, default_factory=Clock)

    def teach(self, teacher: nn.Module) -> None:
        """Take this teacher until ``detach``, unless the options name one."""
        self._teacher.lend(teacher)

    def time(self, steps: int) -> None:
        """Take how long the training is that ``warmup`` is a share of; without it there is none."""
        self._clock.steps = steps

    def attach(self, model: nn.Module) -> list[nn.Parameter]:
        """Put the teacher into evaluation mode; return the count of steps, which is not trained."""
        weights = (self.alpha, self.beta)
        if not (all(math.isfinite(w) and w >= 0 for w in weights) and self.temperature > 0 and 0 <= self.warmup <= 1):
            raise TrainError(
                "dkd needs alpha and beta of 0 or more, a temperature above 0 and a warmup from 0 to 1; "
                f"got {self.alpha}, {self.beta}, {self.temperature} and {self.warmup}."
            )
        self._teacher.hire(self.teacher, model)
        return self._clock.attach()

    def __call__(self, x: Tensor, outputs: Any, y: Tensor | None) -> Tensor:
        """Return the weighted sum, averaged over batch and places; a scalar.

        Shapes: logits [n, classes] or [n, classes, h, w] → scalar.
        """
        own, theirs = (rows(logits) for logits in both("dkd", outputs, self._teacher(x)))
        if own.shape[1] < 2:
            raise TrainError(f"dkd tells the target class from the others; the model returns {own.shape[1]} class.")
        target = _targets(theirs, y)
        of_target, of_others = decoupled(own / self.temperature, theirs / self.temperature, target)
        return (self.temperature**2 * (self.alpha * of_target + self.beta * of_others) * self._share()).float()

    def _share(self) -> Tensor | float:
        """Return the part of its full weight that the term has by now."""
        if not (self.warmup and self._clock.steps):
            return 1.0
        # The step that is being taken counts, or the first would learn nothing.
        return ((self._clock.progress() + 1 / self._clock.steps) / self.warmup).clamp(max=1.0)

    def after_step(self) -> None:
        """Count the step."""
        self._clock.tick()

    def detach(self) -> None:
        """Give the teacher its modes and its device back and forget a lent one."""
        self._clock.steps = 0
        self._teacher.release()


def decoupled(own: Tensor, theirs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return both divergences from the teacher: of the target against all others, and among the others.

    ``KL = first + (1 - p_t(target)) * second`` for one sample.

    Shapes: logits [n, classes], target [n] → two scalars, averaged over n.
    """
    others = torch.ones_like(own, dtype=torch.bool).scatter_(1, target[:, None], False)
    n, classes = own.shape
    first, second = [], []
    for logits in (own, theirs):
        rest = logits[others].view(n, classes - 1)
        # The logarithm of what all others have together, without the loss of digits of 1 - p.
        pair = torch.stack([logits.gather(1, target[:, None])[:, 0], rest.logsumexp(1)], 1)
        first.append(F.log_softmax(pair, 1))
        second.append(F.log_softmax(rest, 1))
    one, two = (F.kl_div(s, t, reduction="batchmean", log_target=True) for s, t in (first, second))
    return one, two


def _targets(theirs: Tensor, y: Tensor | None) -> Tensor:
    """Return the label of each row, or the teacher's first choice where it has none that is a class."""
    choice = theirs.argmax(1)
    if y is None:
        return choice
    y = y.flatten()
    return torch.where((y >= 0) & (y < theirs.shape[1]), y, choice)
