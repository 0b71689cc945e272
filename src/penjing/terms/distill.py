"""Learn from a teacher's outputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core.errors import TrainError
from penjing.core.outputs import first_tensor
from penjing.core.registry import register


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
    _lent: list[nn.Module] = field(init=False, repr=False, compare=False, default_factory=list)
    _modes: dict[nn.Module, bool] = field(init=False, repr=False, compare=False, default_factory=dict)
    _moved: list[tuple[nn.Module, torch.device]] = field(init=False, repr=False, compare=False, default_factory=list)

    @property
    def task_weight(self) -> float:
        """What is left for the task loss."""
        return 1 - self.weight

    def teach(self, teacher: nn.Module) -> None:
        """Take this teacher until ``detach``, unless the options name one."""
        self._lent[:] = [teacher]

    def attach(self, model: nn.Module) -> list[nn.Parameter]:
        """Put the teacher into evaluation mode; there are no parameters to train."""
        if self.temperature <= 0 or not 0 <= self.weight <= 1:
            raise TrainError(
                f"soft_targets needs a temperature above 0 and a weight from 0 to 1; "
                f"got {self.temperature} and {self.weight}."
            )
        teacher = self._teacher()
        if teacher is model:
            raise TrainError("soft_targets: the teacher is the model being trained; give a copy or another network.")
        for module in teacher.modules():
            self._modes.setdefault(module, module.training)
        teacher.eval()
        return []

    def __call__(self, x: Tensor, outputs: Any, y: Tensor | None) -> Tensor:
        """Return ``weight * T² * KL(teacher ‖ model)``, summed over classes and averaged over the batch.

        Shapes: logits [n, classes] → scalar.
        """
        teacher = self._teacher()
        home = next((t.device for t in chain(teacher.parameters(), teacher.buffers())), x.device)
        if home != x.device:
            self._moved.append((teacher, home))
            teacher.to(x.device)
        with torch.no_grad():
            given = first_tensor(teacher(x)).double()
        # Doubles, because T² multiplies the rounding error: at T = 100 floats keep three digits.
        own = first_tensor(outputs).double()
        if own.shape != given.shape:
            raise TrainError(
                f"soft_targets: the teacher returns {list(given.shape)} and the model {list(own.shape)}; "
                "both need the same classes."
            )
        q = F.log_softmax(own / self.temperature, 1)
        p = F.log_softmax(given / self.temperature, 1)
        divergence = F.kl_div(q, p, reduction="batchmean", log_target=True)
        # T² keeps the gradient's size independent of the temperature (section 2.1).
        return (self.weight * self.temperature**2 * divergence).float()

    def after_step(self) -> None:
        """Do nothing."""

    def detach(self) -> None:
        """Give the teacher its modes and its device back and forget a lent one."""
        if self._moved:
            teacher, home = self._moved[0]
            teacher.to(home)
            self._moved.clear()
        for module, training in self._modes.items():
            module.training = training
        self._modes.clear()
        self._lent.clear()

    def _teacher(self) -> nn.Module:
        teacher = self.teacher if self.teacher is not None else next(iter(self._lent), None)
        if isinstance(teacher, nn.Module):
            return teacher
        if teacher is None:
            raise TrainError("soft_targets needs a teacher: give the network to learn from as its option `teacher`.")
        raise TrainError(f"soft_targets: the teacher must be a torch.nn.Module, not {type(teacher).__name__}.")
