"""How far a training is, for terms that change their weight on the way."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def counter() -> nn.Parameter:
    """Return a count of optimiser steps: a parameter that is not trained, so that a checkpoint keeps it."""
    return nn.Parameter(torch.zeros((), dtype=torch.int64), requires_grad=False)


class Clock:
    """Counts optimiser steps."""

    def __init__(self) -> None:
        self.steps = 0
        self._step = counter()

    def attach(self) -> list[nn.Parameter]:
        """Begin at zero; return the count."""
        self._step = counter()
        return [self._step]

    def tick(self) -> None:
        """Count a step."""
        self._step.data.add_(1)

    def progress(self) -> Tensor:
        """Return the share of the ``steps`` that is done, a scalar from 0 to 1 on the count's device."""
        return (self._step.detach() / max(self.steps, 1)).clamp(max=1.0)
