"""Evenly spaced weights and activations whose step is learned by the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from penjing.core.registry import register
from penjing.packing.levels import Levels
from penjing.quantizers.base import Quantizer, Weights
from penjing.quantizers.observers import OBSERVERS, Start
from penjing.quantizers.uniform import (
    LEAST,
    Activations,
    EvenReads,
    Grid,
    bounds,
    checked,
    column,
    input_bits,
    rows,
    within,
    written,
)


@register("quantizer")
@dataclass(frozen=True)
class lsq(Quantizer):  # noqa: N801  (registered under its own name)
    """Round weights and what layers read to steps that are learned: the default for 2 to 8 bits.

    ``activations`` are the bits of what layers read: ``same`` as those of their weights, or None for floats. ``start``
    is what steps begin with: the least squared error (``mse``), the paper's formula (``mean``), ``max``, ``percentile``
    or ``entropy``. ``per_filter`` gives every filter a step of its own.

    Paper: Esser et al., Learned Step Size Quantization, ICLR 2020, eqs. 1 to 5 and section 2.2. Differs: steps begin
    with the least squared error; N of an activation's gradient scale counts the numbers of one picture.
    """

    widths: ClassVar[tuple[int, ...]] = tuple(range(2, 9))
    usual: ClassVar[int] = 4

    activations: Activations = "same"
    start: Start = "mse"
    per_filter: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        checked(self.name, self.activations, self.widths)

    def weights(self, shape: tuple[int, ...], bits: int) -> LearnedWeights:
        """Return what rounds a weight."""
        return LearnedWeights(shape, within(self.name, bits, self.widths), self)

    def reads(self, channels: int, bits: int) -> LearnedReads | None:
        """Return what rounds what a layer reads."""
        wanted = input_bits(self.activations, bits)
        return None if wanted is None else LearnedReads(wanted, self.start)


class LearnedWeights(Weights):
    """Weights rounded to a learned step, one or one a filter."""

    def __init__(self, shape: tuple[int, ...], bits: int, options: lsq) -> None:
        super().__init__(bits)
        self.options = options
        self.lowest, self.highest = bounds(bits, signed=True)
        self.step = nn.Parameter(torch.ones(shape[0] if options.per_filter else ()))

    @torch.no_grad()
    def start(self, weight: Tensor) -> Tensor:
        """Set the step by the trained weight."""
        found = OBSERVERS[self.options.start](rows(weight, self.options.per_filter), self.lowest, self.highest)
        self.step.copy_(found.reshape(self.step.shape))
        return super().start(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the rounded weight."""
        count = weight.numel() / self.step.numel()
        share = (count * self.highest) ** -0.5
        return rounded(weight, column(self.step, weight), self.lowest, self.highest, share)

    def levels(self, weight: Tensor) -> Levels:
        """Return the whole numbers and the step."""
        codes = (weight / column(self.step, weight)).clamp(self.lowest, self.highest).round()
        return written(codes, self.lowest, self.highest, self.step, self.bits)

    @torch.no_grad()
    def after_step(self, weight: nn.Parameter, progress: float) -> None:
        """Keep steps above zero."""
        self.step.clamp_(min=LEAST)


class LearnedReads(EvenReads):
    """What a layer reads, rounded to one learned step."""

    def __init__(self, bits: int, start: Start) -> None:
        super().__init__(bits)
        self.begin = start
        self.step = nn.Parameter(torch.tensor(1.0))

    @torch.no_grad()
    def fit(self, samples: Tensor, lowest: int, highest: int) -> None:
        """Set the step by samples."""
        self.step.copy_(OBSERVERS[self.begin](samples, lowest, highest)[0])

    def forward(self, x: Tensor) -> Tensor:
        """Return the rounded input."""
        share = (x[0].numel() * self.highest) ** -0.5
        return rounded(x, self.step, self.lowest, self.highest, share)

    def grid(self) -> Grid:
        """Return the numbers that the layer may read."""
        return Grid(self.step.detach(), self.lowest, self.highest, torch.zeros_like(self.lowest))

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Keep the step above zero."""
        self.step.clamp_(min=LEAST)


def rounded(x: Tensor, step: Tensor, lowest: Any, highest: Any, share: Any) -> Tensor:
    """Return x rounded to whole multiples of ``step`` between two codes, with the gradient of learned steps.

    ``step`` broadcasts against x; ``share`` is what its gradient is multiplied by (eq. 3 and section 2.2).
    """
    return cast(Tensor, _Rounded.apply(x, step, lowest, highest, share))  # type: ignore[no-untyped-call]


class _Rounded(torch.autograd.Function):
    """The rounding, and eqs. 3 and 5; by hand, since autograd would keep six tensors of the size of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, lowest: Any, highest: Any, share: Any) -> Tensor:
        ctx.save_for_backward(x, step)
        ctx.facts = lowest, highest, share
        return (x / step).clamp(lowest, highest).round() * step

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (x, step), (lowest, highest, share), (grad,) = ctx.saved_tensors, ctx.facts, grads
        ratio = x / step
        inside = (ratio >= lowest) & (ratio <= highest)
        slope = ratio.clamp(lowest, highest).round() - ratio * inside
        return grad * inside, (grad * slope).sum_to_size(step.shape) * share, None, None, None
