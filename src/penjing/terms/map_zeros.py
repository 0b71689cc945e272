"""Let the maps of collaborative layers become zero at more positions while the network trains."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from penjing.graph.collaborative import Collaborative, collaborators
from penjing.terms.clock import counter


@dataclass(eq=False)
class MapZeros:
    """Holds each map at a growing share of zeros, and asks for more by their L1 norm.

    A map ReLU(γ u + β) of a normalised u begins as the constant 1: γ = 0, β = 1. During the first ``until`` steps
    bounds lead it to γ ≥ 1, β ≤ -γ Φ⁻¹(zeros), where a share ``zeros`` of it or more is zero, if u is Gaussian; None
    leaves it to the loss. To that ``penalty`` is added times the mean over all maps C of
    ‖C‖₁ / (√n ‖C‖₂), n being a map's values in a batch: the L1 norm of a map relative to its size, 1 for a constant one
    and √(1 - z) for one that is zero at a share z and constant elsewhere. L1 alone would make a map small everywhere,
    which the batch norm behind it undoes.
    """

    names: Collection[str]
    penalty: float
    zeros: float | None = None
    until: int = 0
    _layers: list[Collaborative] = field(init=False, repr=False, default_factory=list)
    _step: nn.Parameter = field(init=False, repr=False)
    _maps: list[Tensor] = field(init=False, repr=False, default_factory=list)
    _handles: list[RemovableHandle] = field(init=False, repr=False, default_factory=list)

    def attach(self, model: nn.Module) -> list[nn.Parameter]:
        """Listen at the maps; return how many steps were taken."""
        self._layers = [layer for name, layer in collaborators(model).items() if name in self.names]
        self._handles = [layer.map.register_forward_hook(self._hear) for layer in self._layers if self.penalty]
        self._step = counter()
        return [self._step]

    def _hear(self, _: nn.Module, __: Any, made: Tensor) -> None:
        if made.requires_grad:  # none is wanted of validation pictures
            self._maps.append(made)

    def __call__(self, x: Tensor, outputs: Any, y: Tensor | None) -> Tensor:
        """Return the weighted mean of the relative norms; a scalar."""
        ratios = [made.float().mean() / made.float().square().mean().add(1e-12).sqrt() for made in self._maps]
        self._maps.clear()
        return self.penalty * torch.stack(ratios).mean() if ratios else x.new_zeros(())

    @torch.no_grad()
    def after_step(self) -> None:
        """Count the step, and hold scale and shift of every map within their bounds."""
        self._step.data.add_(1)
        if self.zeros is None:
            return
        opened = min(int(self._step) / self.until, 1.0) if self.until else 1.0
        quantile = torch.special.ndtri(torch.tensor(self.zeros, dtype=torch.float64)).item()
        for layer in self._layers:
            scale, shift = layer.map.norm.weight, layer.map.norm.bias
            scale.clamp_(min=opened)
            shift.copy_(torch.minimum(shift, 1 - opened - quantile * scale))

    def detach(self) -> None:
        """Stop listening."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._maps.clear()
        self._layers.clear()
