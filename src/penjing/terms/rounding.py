"""What quantized layers want while a network trains: to clip latent weights and anneal, after each step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from penjing.graph.quantized import Quantized, quantized
from penjing.terms.clock import Clock


@dataclass(eq=False)
class Rounding:
    """Tell every quantized layer how far a training is; adds nothing to the loss."""

    _layers: list[Quantized] = field(init=False, repr=False, default_factory=list)
    _clock: Clock = field(init=False, repr=False, default_factory=Clock)

    def time(self, steps: int) -> None:
        """Take how many steps the training has."""
        self._clock.steps = steps

    def attach(self, model: nn.Module) -> list[nn.Parameter]:
        """Find the layers; return how many steps were taken, which a checkpoint keeps."""
        self._layers = list(quantized(model).values())
        return self._clock.attach()

    def __call__(self, x: Tensor, outputs: Any, y: Tensor | None) -> Tensor:
        """Return zero."""
        return x.new_zeros(())

    @torch.no_grad()
    def after_step(self) -> None:
        """Count the step and let the layers clip and anneal."""
        self._clock.tick()
        progress = float(self._clock.progress())
        for layer in self._layers:
            layer.after_step(progress)

    def detach(self) -> None:
        """Let the layers go."""
        self._layers.clear()
