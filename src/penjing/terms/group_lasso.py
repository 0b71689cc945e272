"""Group lasso by proximal steps: whole groups of weights become zero, exactly, while the network trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from penjing.graph.groups import Groups, Tensors
from penjing.terms.clock import counter
from penjing.terms.masks import PACES


@dataclass(eq=False)
class GroupLasso:
    """After every optimiser step shrink each group by the learning rate times ``penalty``.

    ``rate`` returns the learning rate of a step, from 0. With ``sized`` a group's penalty is multiplied by the square
    root of its number of weights. ``pace`` is called now and then in the ``steps`` that there are, with the parameters
    and the share of the training that is done, and may set more of them to zero.

    Paper: Wen, Wu, Wang, Chen, Li, Learning Structured Sparsity in Deep Neural Networks, NIPS 2016, eq. 1 and 2.
    Differs: a proximal step in place of the penalty's gradient, which never ends in zeros.
    """

    groups: Sequence[Groups]
    penalty: float
    rate: Callable[[int], float]
    sized: bool = False
    steps: int = 1
    pace: Callable[[Tensors, float], None] | None = None
    _step: nn.Parameter = field(init=False)

    def attach(self, model: nn.Module) -> list[nn.Parameter]:
        """Find the parameters; the count of steps is the term's own."""
        self._parameters = dict(model.named_parameters(remove_duplicate=False))
        self._step = counter()
        return [self._step]

    def __call__(self, x: Tensor, outputs: Any, y: Tensor | None) -> Tensor:
        """Return zero: the penalty acts after the step."""
        return x.new_zeros(())

    def after_step(self) -> None:
        """Shrink every group."""
        step = int(self._step)
        self._step.data += 1
        device = next(iter(self._parameters.values())).device
        self.groups = [groups.to(device) for groups in self.groups]
        for groups in self.groups:
            size = groups.each**0.5 if self.sized else 1.0
            groups.shrink(self._parameters, self.rate(step) * self.penalty * size)
        if self.pace is not None and (step + 1) % max(1, self.steps // PACES) == 0:
            self.pace(self._parameters, (step + 1) / self.steps)

    def detach(self) -> None:
        """Forget the parameters."""
        self._parameters = {}
