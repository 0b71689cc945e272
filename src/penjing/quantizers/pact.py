"""Activations clipped where the loss learns to clip them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.core.registry import register
from penjing.quantizers.base import Quantizer, straight_through
from penjing.quantizers.dorefa import Squashed
from penjing.quantizers.observers import least_error
from penjing.quantizers.uniform import LEAST, Activations, EvenReads, Grid, checked, input_bits, within


@register("quantizer")
@dataclass(frozen=True)
class pact(Quantizer):  # noqa: N801  (registered under its own name)
    """Round what layers read between 0 and a learned clip; weights as ``dorefa``.

    ``activations`` are bits, or ``same`` as the weights'. ``clip`` is what clips begin with, the paper's 10 or so;
    None takes the least squared error of some pictures. ``decay`` is the weight decay of clips, which are spared by
    that of the training.

    Paper: Choi et al., PACT, 2018, eqs. 1 to 3 and section 3.2. Differs: clips begin with the least squared error, and
    inputs of both signs are clipped to [-clip, clip].
    """

    widths: ClassVar[tuple[int, ...]] = tuple(range(1, 9))
    usual: ClassVar[int] = 2

    activations: Activations = "same"
    clip: float | None = None
    decay: float = 1e-4

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        checked(self.name, self.activations, self.widths)
        if self.activations is None:
            raise PlanError("pact: it is about activations; give their bits, or take dorefa.")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise PlanError(f"pact: clip is the largest number that a layer reads; got {self.clip}.")
        if not 0 <= self.decay < math.inf:
            raise PlanError(f"pact: decay is 0 or more; got {self.decay}.")

    def weights(self, shape: tuple[int, ...], bits: int) -> Squashed:
        """Return what rounds a weight."""
        return Squashed(within(self.name, bits, self.widths))

    def reads(self, channels: int, bits: int) -> LearnedClip | None:
        """Return what rounds what a layer reads."""
        wanted = input_bits(self.activations, bits)
        return None if wanted is None else LearnedClip(wanted, self)


class LearnedClip(EvenReads):
    """What a layer reads, clipped at a learned number and rounded."""

    def __init__(self, bits: int, options: pact) -> None:
        super().__init__(bits, symmetric=True)
        self.options = options
        self.clip = nn.Parameter(torch.tensor(float(options.clip or 1)))

    @torch.no_grad()
    def fit(self, samples: Tensor, lowest: int, highest: int) -> None:
        """Set the clip."""
        given = self.options.clip
        self.clip.copy_(least_error(samples, lowest, highest)[0] * highest if given is None else torch.tensor(given))

    def forward(self, x: Tensor) -> Tensor:
        """Return the rounded input; what is clipped reaches the clip."""
        clip = _decayed(self.clip, self.options.decay) if self.training else self.clip
        floor = torch.where(self.lowest < 0, -clip, 0.0)
        clipped = torch.where(x >= clip, clip, torch.where(x <= floor, floor, x))
        grid = self.grid()
        return straight_through(clipped, grid.values(grid.codes(x.detach())))

    def grid(self) -> Grid:
        """Return the numbers that the layer may read."""
        return Grid(self.clip.detach() / self.highest, self.lowest, self.highest, torch.zeros_like(self.lowest))

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Keep the clip above zero."""
        self.clip.clamp_(min=LEAST * float(self.highest))


def _decayed(clip: Tensor, decay: float) -> Tensor:
    """Return the clip, whose gradient is that of an L2 penalty as well."""
    return cast(Tensor, _Decayed.apply(clip, decay))  # type: ignore[no-untyped-call]


class _Decayed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, clip: Tensor, decay: float) -> Tensor:
        ctx.save_for_backward(clip)
        ctx.decay = decay
        return clip.view_as(clip)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0] + ctx.decay * ctx.saved_tensors[0], None
