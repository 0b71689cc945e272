"""Learn from what a teacher computes on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from penjing.core import console
from penjing.core.errors import TrainError
from penjing.core.registry import register
from penjing.terms.pairs import Between, alike, gap
from penjing.terms.teacher import Teacher


@register("term")
@dataclass(frozen=True)
class hints:  # noqa: N801 - the name a recipe writes
    """Pull what layers compute towards what the teacher computes there.

    Adds ``weight * Σ ‖s - t‖² / (‖s‖² + ‖t‖²)`` over layers, ``s`` and ``t`` being what the layer of that name returns
    for the batch in the model and in the teacher; the divisor has no gradient. Of a teacher that the model was cut
    from, those channels alone count that the layer still has (``relate``). ``layers`` names them; by default it is, at
    every spatial size above one, the last one whose result has the same shape then: in a residual network whose stream
    was left whole the end of every stage, and otherwise a convolution or its norm. Where none has, the term adds
    nothing and says so. A larger weight pulls harder and asks for a smaller learning rate: 200 was best for a deep
    residual network, and too much for a small one of inverted residuals.

    Raises: TrainError without a teacher, for a layer that either network lacks, or one that returns another shape.
    Paper: Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015, eq. 3.
    Differs: no regressor, since a cut network computes what its original does, channel by channel; several layers at
    once, each relative to the size of what is computed, so that no layer can run away; beside the task from the start.
    """

    weight: float = 20.0
    layers: tuple[str, ...] = ()
    teacher: Any = field(default=None, repr=False, compare=False)
    _teacher: Teacher = field(init=False, repr=False, compare=False, default_factory=lambda: Teacher("hints"))
    _between: Between = field(init=False, repr=False, compare=False, default_factory=lambda: Between("hints", alike))

    def teach(self, teacher: nn.Module) -> None:
        """Take this teacher until ``detach``, unless the options name one."""
        self._teacher.lend(teacher)

    def relate(self, left: Mapping[str, NDArray[np.bool_]]) -> None:
        """Hear these channels alone of the original that is lent, until ``detach``."""
        if self.teacher is None:
            self._between.left = {name: torch.from_numpy(there) for name, there in left.items()}

    def attach(self, model: nn.Module) -> list[nn.Parameter]:
        """Listen at both networks; there are no parameters to train."""
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise TrainError(f"hints needs a weight of 0 or more; got {self.weight}.")
        self._between.listen(model, self._teacher.hire(self.teacher, model), self.layers)
        return []

    def __call__(self, x: Tensor, outputs: Any, y: Tensor | None) -> Tensor:
        """Return the weighted sum of relative squared distances; a scalar."""
        chosen = self._between.pairs
        heard = self._between.hear(x, self._teacher)
        if chosen is None and not heard:
            console.remark("hints: no layer returns the shape it returns in the teacher; the term adds nothing")
        loss = x.new_zeros((), dtype=torch.float32)
        for pair, own, theirs in heard:
            if own.shape != theirs.shape:
                raise TrainError(
                    f"hints: {pair.theirs} returns {list(theirs.shape)} in the teacher and {pair.own} "
                    f"{list(own.shape)} in the model; name layers whose channels were not cut, or take "
                    "attention_transfer or fitnets, which compare layers of other widths."
                )
            loss = loss + gap(own, theirs)
        return self.weight * loss

    def after_step(self) -> None:
        """Do nothing."""

    def detach(self) -> None:
        """Stop listening, give the teacher its modes and its device back, and forget what was lent."""
        self._between.close()
        self._between.left = {}
        self._teacher.release()
