"""Learn from a teacher's outputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core.errors import TrainError
from penjing.core.registry import register
from penjing.terms.logits import both
from penjing.terms.teacher import Teacher


@register("term")
@dataclass(frozen=True)
class soft_targets:  # noqa: N801 - the name a recipe writes
    """Pull the class probabilities towards a teacher's, both softened by a temperature.

    With ``a`` the weight, the term adds ``a T² KL(p ‖ q)`` and scales the task loss by ``1 - a`` (``task_weight``).
    Labels are not used. The teacher runs in evaluation mode and without gradients on the very batch the model sees,
    under the caller's autocast; its modes and its device are restored. Give it as an option or through ``teach``.

    Raises: TrainError without a teacher, or when the teacher has other classes.
    Paper: Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, 2015, section 2.
    """

    temperature: float = 4.0
    weight: float = 0.9
    teacher: Any = field(default=None, repr=False, compare=False)
    _teacher: Teacher = field(init=False, repr=False, compare=False, default_factory=lambda: Teacher("soft_targets"))

    @property
    def task_weight(self) -> float:
        """What is left for the task loss."""
        return 1 - self.weight

    def teach(self, teacher: nn.Module) -> None:
        """Take this teacher until ``detach``, unless the options name one."""
        self._teacher.lend(teacher)

    def attach(self, model: nn.Module) -> list[nn.Parameter]:
        """Put the teacher into evaluation mode; there are no parameters to train."""
        if self.temperature <= 0 or not 0 <= self.weight <= 1:
            raise TrainError(
                f"soft_targets needs a temperature above 0 and a weight from 0 to 1; "
                f"got {self.temperature} and {self.weight}."
            )
        self._teacher.hire(self.teacher, model)
        return []

    def __call__(self, x: Tensor, outputs: Any, y: Tensor | None) -> Tensor:
        """Return ``weight * T² * KL(teacher ‖ model)``, summed over classes and averaged over batch and positions.

        Shapes: logits [n, classes] or [n, classes, h, w] → scalar.
        """
        own, given = both("soft_targets", outputs, self._teacher(x))
        q = F.log_softmax(own / self.temperature, 1)
        p = F.log_softmax(given / self.temperature, 1)
        divergence = F.kl_div(q, p, reduction="batchmean", log_target=True) / q.shape[2:].numel()
        # T² keeps the gradient's size independent of the temperature (section 2.1).
        return (self.weight * self.temperature**2 * divergence).float()

    def after_step(self) -> None:
        """Do nothing."""

    def detach(self) -> None:
        """Give the teacher its modes and its device back and forget a lent one."""
        self._teacher.release()
