"""Keep a network sparse while it trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core.registry import register


@register("term")
@dataclass(frozen=True)
class hold_zeros:  # noqa: N801 - the name a recipe writes
    """Hold every weight at zero that is zero when training starts; adds nothing to the loss.

    The pattern is read from the weights themselves (parameters of two or more dimensions), so there is no mask to
    carry along, and biases and batch norm stay free.
    """

    _zeros: list[tuple[nn.Parameter, Tensor]] = field(init=False, repr=False, compare=False, default_factory=list)

    def attach(self, model: nn.Module) -> list[nn.Parameter]:
        """Read the zero pattern; there are no parameters to train."""
        self._zeros.clear()
        for weight in model.parameters():
            zero = weight.detach() == 0
            if weight.ndim >= 2 and bool(zero.any()):
                self._zeros.append((weight, zero))
        return []

    def __call__(self, x: Tensor, outputs: Any, y: Tensor | None) -> Tensor:
        """Return zero."""
        return x.new_zeros(())

    @torch.no_grad()
    def after_step(self) -> None:
        """Put the zeros back, which momentum moves even where the gradient is zero."""
        for weight, zero in self._zeros:
            weight.masked_fill_(zero.to(weight.device), 0)

    def detach(self) -> None:
        """Forget the pattern."""
        self._zeros.clear()
