"""What quantized layers want while a network trains: to clip latent weights and anneal, after each step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from penjing.graph.quantized import Quantized, quantized


@dataclass(eq=False)
class Rounding:
    """Tell every quantized layer how far a training of so many ``steps`` is; adds nothing to the loss."""

    steps: int
    _layers: list[Quantized] = field(init=False, repr=False, default_factory=list)
    _step: nn.Parameter = field(init=False, repr=False)

    def attach(self, model: nn.Module) -> list[nn.Parameter]:
        """Find the layers; return how many steps were taken, which a checkpoint keeps."""
        self._layers = list(quantized(model).values())
        self._step = nn.Parameter(torch.zeros((), dtype=torch.int64), requires_grad=False)
        return [self._step]

    def __call__(self, x: Tensor, outputs: Any, y: Tensor | None) -> Tensor:
        """Return zero."""
        return x.new_zeros(())

    @torch.no_grad()
    def after_step(self) -> None:
        """Count the step and let the layers clip and anneal."""
        self._step.data.add_(1)
        progress = min(int(self._step) / max(self.steps, 1), 1.0)
        for layer in self._layers:
            layer.after_step(progress)

    def detach(self) -> None:
        """Let the layers go."""
        self._layers.clear()
