"""What every quantizer offers; a new one says how a weight is rounded and how its gradient passes, and no more."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from penjing.packing.hashed import Hashed
from penjing.packing.levels import Levels


class Weights(nn.Module, ABC):
    """How one layer's weight is rounded: maps the latent weight, which is trained, to the one that is computed with.

    What is learned or held beside the weight are parameters and buffers of its own, whose shapes are known when it is
    made, so that a bundle can fill them. The latent weight is the layer's and keeps its name. ``latent`` says whether
    it is trained; where it is not, it has told which code stands where, and what is trained is the table.
    """

    latent: ClassVar[bool] = True

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def see(self, samples: Tensor, layer: nn.Module) -> None:
        """Note what the layer reads of some pictures, [n, channels, ...]: given before ``start``, if there are any.

        ``layer`` is the nn.Conv2d or nn.Linear that reads them. Nothing is noted where a method looks at weights alone.
        """

    def start(self, weight: Tensor) -> Tensor:
        """Set what is held, by a trained weight; return the latent weight to begin with, by default that weight."""
        return weight.detach().clone()

    @abstractmethod
    def forward(self, weight: Tensor) -> Tensor:
        """Return the rounded weight of the same shape, through which gradients reach ``weight``."""

    @abstractmethod
    def levels(self, weight: Tensor) -> Levels | Hashed:
        """Return what is stored of the rounded weight; its ``values`` are what ``forward`` returns in evaluation."""

    def after_step(self, weight: nn.Parameter, progress: float) -> None:
        """Clip or centre the latent weight, in place, or anneal; ``progress`` is the share of the training done."""


class Reads(nn.Module, ABC):
    """How what one layer reads is rounded."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def start(self, samples: Tensor) -> None:
        """Set what is held, by what the layer reads of some pictures, [n, channels, ...]."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return the rounded input, through which gradients reach ``x``."""

    def gain(self, x: Tensor, layer: nn.Module) -> Tensor | None:
        """Return what the layer's output is multiplied by, by the unrounded input; None for nothing."""
        return None

    def after_step(self, progress: float) -> None:
        """Anneal, or keep what is learned within its range."""


@dataclass(frozen=True)
class Quantizer(ABC):
    """A method: its options, and what it makes for a layer.

    ``widths`` are the bits that a weight may have, ``usual`` those where none are given, 0 for the fewest. ``signed``
    says that layers tell apart the signs of what they read: where a ReLU stands in front, and nothing is negative,
    those of its difference from a threshold that is learned. ``pad`` is what stands around a picture that a layer
    reads. Both count only where ``reads`` returns something. ``sees`` says that weights are rounded by what layers read
    as well.
    """

    widths: ClassVar[tuple[int, ...]]
    usual: ClassVar[int] = 0
    signed: ClassVar[bool] = False
    pad: ClassVar[float] = 0.0
    sees: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The name it is registered under."""
        return type(self).__name__.rstrip("_")

    @abstractmethod
    def weights(self, shape: tuple[int, ...], bits: int) -> Weights:
        """Return what rounds the weight of a layer, float32 [out, in / groups, ...], to so many bits."""

    def stored(self, shape: tuple[int, ...], bits: int) -> int:
        """Return how many bits such a weight takes up when it is stored, its table included."""
        return bits * math.prod(shape)

    def wants_samples(self, bits: int) -> bool:
        """Tell whether a layer begins with what it reads of some pictures."""
        return self.sees or self.reads(1, bits) is not None

    def reads(self, channels: int, bits: int) -> Reads | None:
        """Return what rounds what a layer reads, if anything; ``bits`` are those of its weights."""
        return None

    def writes(self, bits: int) -> nn.Module | None:
        """Return what stands behind a layer while it is trained, if anything: a quantizer of gradients."""
        return None


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """Return ``rounded`` with the gradient of ``x``.

    >>> x = torch.tensor([0.4, 1.7], requires_grad=True)
    >>> straight_through(x, x.round()).sum().backward()
    >>> x.grad
    tensor([1., 1.])
    """
    if not (x.requires_grad and torch.is_grad_enabled()):
        return rounded.detach()
    return rounded.detach() + (x - x.detach())  # in this order, or the sum would be rounded once more


def scaled_gradient(x: Tensor, share: Tensor) -> Tensor:
    """Return ``x`` itself, to the bit, with its gradient times ``share``.

    >>> x = torch.tensor([0.1, 0.7], requires_grad=True)
    >>> scaled_gradient(x, torch.tensor([0.5, 0.0])).sum().backward()
    >>> x.grad
    tensor([0.5000, 0.0000])
    """
    return x.detach() + (x - x.detach()) * share


def sign(x: Tensor) -> Tensor:
    """Return 1 where x is 0 or more, else -1.

    >>> sign(torch.tensor([-0.5, 0.0, 2.0]))
    tensor([-1.,  1.,  1.])
    """
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)
