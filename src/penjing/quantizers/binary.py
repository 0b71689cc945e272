"""What methods of one bit share: weights and what layers read as signs, and gradients with a slope of one's own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from penjing.packing.levels import Levels
from penjing.quantizers.base import Quantizer, Reads, Weights, sign


class _Sloped(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, rounded: Tensor, slope: Tensor) -> Tensor:
        return rounded.view_as(rounded)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return grads[0] * slope, None, None


def sloped(x: Tensor, rounded: Tensor, slope: Tensor) -> Tensor:
    """Return ``rounded`` with the gradient of ``x``, times ``slope``: one number, one an element, or a mask.

    >>> x = torch.tensor([0.4, 1.7], requires_grad=True)
    >>> sloped(x, x.detach().round(), x.detach() <= 1).sum().backward()
    >>> x.grad
    tensor([1., 0.])
    """
    found: Tensor = _Sloped.apply(x, rounded.detach(), slope.detach())  # type: ignore[no-untyped-call]
    return found


class Signs(Reads):
    """Minus one or one of what a layer reads; ``slope`` is the derivative that stands for that of the sign."""

    def __init__(self, slope: Callable[[Tensor], Tensor]) -> None:
        super().__init__(1)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """Return the signs."""
        return sloped(x, sign(x), self.slope(x.detach())) if torch.is_grad_enabled() else sign(x)


class ScaledSigns(Weights):
    """Signs times the mean size of each filter, which is of the least squared error (XNOR-Net, eq. 6)."""

    def forward(self, weight: Tensor) -> Tensor:
        """Return the scaled signs."""
        latent = weight.detach()
        scale = mean_size(latent)
        return sloped(weight, sign(latent) * scale, self.slope(latent, scale))

    @abstractmethod
    def slope(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Return what the gradient is multiplied by on its way to the latent weight."""

    def levels(self, weight: Tensor) -> Levels:
        """Return the signs, and a scale a filter."""
        return as_levels(weight, mean_size(weight.detach()))


class Binary(Quantizer):
    """A method whose weights have one bit."""

    widths: ClassVar[tuple[int, ...]] = (1,)


class FullyBinary(Binary):
    """A method whose layers read signs too, with -1 around the picture, as no bit is zero."""

    signed: ClassVar[bool] = True
    pad: ClassVar[float] = -1.0


def mean_size(weight: Tensor) -> Tensor:
    """Return the mean size of each filter's weights, [out, 1, ...]."""
    return by_filter(weight.flatten(1).abs().mean(1), weight)


def by_filter(values: Tensor, weight: Tensor) -> Tensor:
    """Return values [out] so that they broadcast over a weight [out, ...]."""
    return values.reshape(-1, *[1] * (weight.ndim - 1))


def as_levels(weight: Tensor, scale: Tensor) -> Levels:
    """Return the signs of a weight as codes, times one scale or one a filter."""
    codes = (weight.detach() >= 0).flatten().byte().cpu()
    scale = scale.detach().float().cpu()
    return Levels(codes, torch.tensor([-1.0, 1.0]), scale.flatten() if scale.ndim else scale, tuple(weight.shape), 1)
