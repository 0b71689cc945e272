"""Learn where a teacher looks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core.errors import TrainError
from penjing.core.registry import register
from penjing.terms.clock import Clock
from penjing.terms.pairs import Between, ends, need_maps, one_size
from penjing.terms.teacher import Teacher


@register("term")
@dataclass(frozen=True)
class attention_transfer:  # noqa: N801 - the name a recipe writes
    """Pull the places where layers respond strongly towards those where the teacher's do.

    Adds ``weight * Σ mean (q_s - q_t)²`` over pairs of layers, the mean being over batch and places; ``q`` is the mean
    over channels of the squared response at each place, divided by its norm over all places. So channels may differ in
    number and order, and responses in size: any two networks that read the same picture can be compared. ``layers``
    names them, ``model=teacher`` where the names differ; by default they are the ends of stages, at every spatial size
    above one that both have (``penjing.terms.pairs.ends``). With ``decay`` the weight falls linearly to 0 at the end of
    training. The mean makes small maps weigh more, and a narrow student cannot follow everywhere: 1000 is for last maps
    of 8 x 8 and more; where they are smaller, or training stalls, take 10 to 30. Labels are not used.

    Raises: TrainError without a teacher, for a layer that either network lacks, or one that returns no map.
    Paper: Zagoruyko, Komodakis, Paying More Attention to Attention, ICLR 2017, eq. 2, in the form of the released code.
    Differs: where the sizes differ, the larger map of squares is averaged over the places of the smaller.
    """

    weight: float = 1000.0
    layers: str | tuple[str, ...] | Mapping[str, str] = ()
    decay: bool = False
    teacher: Any = field(default=None, repr=False, compare=False)
    _teacher: Teacher = field(
        init=False, repr=False, compare=False, default_factory=lambda: Teacher("attention_transfer")
    )
    _between: Between = field(
        init=False, repr=False, compare=False, default_factory=lambda: Between("attention_transfer", ends)
    )
    _clock: Clock = field(init=False, repr=False, compare=False, default_factory=Clock)

    def teach(self, teacher: nn.Module) -> None:
        """Take this teacher until ``detach``, unless the options name one."""
        self._teacher.lend(teacher)

    def time(self, steps: int) -> None:
        """Take how long the weight falls, for ``decay``."""
        self._clock.steps = steps

    def attach(self, model: nn.Module) -> list[nn.Parameter]:
        """Listen at both networks; return the count of steps, which is not trained."""
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise TrainError(f"attention_transfer needs a weight of 0 or more; got {self.weight}.")
        self._between.listen(model, self._teacher.hire(self.teacher, model), self.layers)
        return self._clock.attach()

    def __call__(self, x: Tensor, outputs: Any, y: Tensor | None) -> Tensor:
        """Return the weighted sum of mean squared differences; a scalar."""
        heard = self._between.hear(x, self._teacher)
        need_maps("attention_transfer", heard)
        loss = x.new_zeros((), dtype=torch.float32)
        for _, own, theirs in heard:
            s, t = one_size(_energy(own), _energy(theirs))
            loss = loss + (F.normalize(s.flatten(1)) - F.normalize(t.flatten(1))).square().mean()
        return self.weight * loss * (1 - self._clock.progress() if self.decay else 1)

    def after_step(self) -> None:
        """Count the step."""
        self._clock.tick()

    def detach(self) -> None:
        """Stop listening, give the teacher its modes and its device back, and forget a lent one."""
        self._between.close()
        self._clock.steps = 0
        self._teacher.release()


def _energy(response: Tensor) -> Tensor:
    """Return the mean square over channels, [n, c, ...] → [n, 1, ...] in float32."""
    return response.float().square().mean(1, keepdim=True)
