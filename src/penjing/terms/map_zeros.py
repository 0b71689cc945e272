"""Let the maps of collaborative layers become zero at more positions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from penjing.graph.collaborative import collaborators


@dataclass(eq=False)
class MapZeros:
    """Adds ``penalty`` times the mean over all collaborative maps C of ‖C‖₁ / (√n ‖C‖₂), n being its values in a batch.

    That is the L1 norm of a map relative to its size: 1 for a constant map, √(1 - z) for one that is zero at a share z
    and constant elsewhere. L1 alone would make a map small everywhere, which the batch norm behind it undoes.
    """

    penalty: float
    _maps: list[Tensor] = field(init=False, repr=False, default_factory=list)
    _handles: list[RemovableHandle] = field(init=False, repr=False, default_factory=list)

    def attach(self, model: nn.Module) -> list[nn.Parameter]:
        """Listen at the maps; there are no parameters to train."""
        self._handles = [layer.map.register_forward_hook(self._hear) for layer in collaborators(model).values()]
        return []

    def _hear(self, _: nn.Module, __: Any, made: Tensor) -> None:
        self._maps.append(made)

    def __call__(self, x: Tensor, outputs: Any, y: Tensor | None) -> Tensor:
        """Return the weighted mean of the relative norms; a scalar."""
        ratios = [made.float().mean() / made.float().square().mean().add(1e-12).sqrt() for made in self._maps]
        self._maps.clear()
        return self.penalty * torch.stack(ratios).mean() if ratios else x.new_zeros(())

    def after_step(self) -> None:
        """Do nothing."""

    def detach(self) -> None:
        """Stop listening."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._maps.clear()
