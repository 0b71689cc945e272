"""A convolution as displaced channels and a pointwise one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from penjing.core.registry import register
from penjing.factors.base import Factorization, Ranks
from penjing.factors.layer import LayerSpec


@register("factorization")
@dataclass(frozen=True)
class shift(Factorization):  # noqa: N801 - the name a recipe writes
    """Write a convolution as channels displaced by whole pixels, which costs no multiplication, and 1 x 1.

    Each input channel is displaced by those taps of its kernels that hold most of their squares, as many as the rank:
    full rank is exact, rank 1 the block of Wu et al. A pick puts together the channels that go the same way.

    Paper: Wu et al., Shift: A Zero FLOP, Zero Parameter Alternative to Spatial Convolutions, CVPR 2018; the choice of
    taps from trained weights is derived here.
    """

    def refuses(self, spec: LayerSpec) -> str:
        """Return why a layer cannot be written so."""
        grouped = "is grouped, and channels that are displaced alike would join its groups"
        return super().refuses(spec) or (grouped if spec.groups > 1 else "")

    def _refuses(self, spec: LayerSpec) -> str:
        return "has a kernel of one tap, and displaces nothing" if spec.taps == 1 else ""

    def _full(self, spec: LayerSpec) -> Ranks:
        return (spec.taps,)

    def _stages(self, spec: LayerSpec, ranks: Ranks) -> dict[str, LayerSpec]:
        wide = spec.in_channels * ranks[0]
        return {
            "order": LayerSpec("pick", spec.in_channels, wide),
            "shift": replace(spec, kind="shift", in_channels=wide, out_channels=wide, groups=wide, bias=False),
            "pointwise": LayerSpec("conv", wide, spec.out_channels),
        }

    def _factors(self, kernel: Tensor, ranks: Ranks) -> Mapping[str, Tensor]:
        t, s, kh, kw = kernel.shape
        strongest = _energies(kernel).argsort(dim=1, descending=True, stable=True)[:, : ranks[0]]
        tap, channel = strongest.T.flatten(), torch.arange(s).repeat(ranks[0])
        together = (tap * s + channel).argsort()
        tap, channel = tap[together], channel[together]
        return {
            "order": channel,
            "shift": torch.bincount(tap, minlength=kh * kw),
            "pointwise": kernel.flatten(2)[:, channel, tap].reshape(t, len(tap), 1, 1),
        }

    def _spectra(self, kernel: Tensor) -> list[tuple[Tensor, int, int]]:
        return [(_energies(kernel).sort(1, descending=True).values.sum(0), 0, 0)]

    def _floats(self, spec: LayerSpec, ranks: Ranks) -> int:
        return 2 * spec.weights


def _energies(kernel: Tensor) -> Tensor:
    """Return the squares of each tap of the kernels that read a channel, [in, taps]."""
    return kernel.square().sum(0).flatten(1)
