"""A convolution as two grouped ones with a channel shuffle between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from penjing.core.errors import PlanError
from penjing.core.registry import register
from penjing.factors.base import Factorization, Ranks
from penjing.factors.layer import LayerSpec
from penjing.factors.spectra import balanced, squares


@register("factorization")
@dataclass(frozen=True)
class grouped_shuffle(Factorization):  # noqa: N801 - the name a recipe writes
    """Write a convolution as k x k in ``groups``, a channel shuffle, and 1 x 1 in ``groups``.

    The weights from each group of inputs to each group of outputs are a matrix with a rank of its own: each group hands
    as many channels as the rank to every group behind the shuffle. Full rank is exact.

    Paper: Zhang et al., ShuffleNet, CVPR 2018, section 3.1; the way from trained weights is derived here.
    Differs: k x k in the first layer in place of a depthwise one behind the shuffle, and nothing between.
    """

    groups: int = 2

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        if isinstance(self.groups, bool) or self.groups < 2:
            raise PlanError(f"grouped_shuffle: groups must be a whole number, 2 or more; got {self.groups}.")

    def refuses(self, spec: LayerSpec) -> str:
        """Return why a layer cannot be written so."""
        grouped = "is grouped already"
        return super().refuses(spec) or (grouped if spec.groups > 1 else "")

    def _refuses(self, spec: LayerSpec) -> str:
        if spec.kind == "linear":
            return "is a linear layer, and groups are a convolution's"
        if spec.in_channels % self.groups or spec.out_channels % self.groups:
            return f"has {spec.in_channels} inputs and {spec.out_channels} outputs, not both multiples of {self.groups}"
        return ""

    def _full(self, spec: LayerSpec) -> Ranks:
        return (min(spec.out_channels, spec.in_channels * spec.taps) // self.groups,)

    def _stages(self, spec: LayerSpec, ranks: Ranks) -> dict[str, LayerSpec]:
        wide = ranks[0] * self.groups**2
        return {
            "grouped": replace(spec, out_channels=wide, groups=self.groups),
            "shuffle": LayerSpec("pick", wide, wide),
            "mix": LayerSpec("conv", wide, spec.out_channels, groups=self.groups),
        }

    def _factors(self, kernel: Tensor, ranks: Ranks) -> Mapping[str, Tensor]:
        (r,), g = ranks, self.groups
        t, s, kh, kw = kernel.shape
        blocks = self._blocks(kernel)
        pairs = [[balanced(blocks[a][b], r) for b in range(g)] for a in range(g)]
        first = torch.cat([right for row in pairs for _, right in row])  # by source, then by what it is for
        last = torch.cat([torch.cat([pairs[a][b][0] for a in range(g)], 1) for b in range(g)])
        return {
            "grouped": first.reshape(g * g * r, s // g, kh, kw),
            "shuffle": torch.arange(g * g * r).reshape(g, g, r).transpose(0, 1).flatten(),
            "mix": last.reshape(t, g * r, 1, 1),
        }

    def _blocks(self, kernel: Tensor) -> list[list[Tensor]]:
        """Return the matrices from each group of inputs to each group of outputs."""
        return [[block.flatten(1) for block in part.chunk(self.groups, 0)] for part in kernel.chunk(self.groups, 1)]

    def _spectra(self, kernel: Tensor) -> list[tuple[Tensor, int, int]]:
        held = [squares(block) for row in self._blocks(kernel) for block in row]
        return [(torch.stack(held).sum(0), 0, 0)]

    def _floats(self, spec: LayerSpec, ranks: Ranks) -> int:
        return 4 * spec.weights
