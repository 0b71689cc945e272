"""A convolution as blocks of input and output clusters, each with ranks of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from penjing.core.registry import register
from penjing.core.units import Floats
from penjing.factors.base import Factorization, Ranks
from penjing.factors.cluster import equal
from penjing.factors.layer import LayerSpec
from penjing.factors.spectra import squares
from penjing.factors.tucker2 import hooi


@register("factorization")
@dataclass(frozen=True)
class bicluster(Factorization):  # noqa: N801 - the name a recipe writes
    """Cluster input and output channels, and write each block between two clusters as 1 x 1, k x k, 1 x 1.

    ``inputs`` and ``outputs`` say how many clusters; all are of one size. The chain orders the channels, computes all
    blocks as grouped convolutions, and orders them back. The two ranks are those of every block, so that full ranks
    are exact; where channels of different clusters do not meet, blocks between them are zero.

    Paper: Denton et al., NIPS 2014, section 3.2.2.
    Differs: a block's factors are a Tucker-2, which improves on two singular value decompositions one after the other;
    channels are clustered by the norms of the kernels that they share, whose signs mean nothing.
    """

    axes: ClassVar[tuple[str, ...]] = ("in", "out")

    inputs: int = 2
    outputs: int = 2

    def refuses(self, spec: LayerSpec) -> str:
        """Return why a layer cannot be factored so."""
        return super().refuses(spec) or ("is grouped, and its channels have their clusters" if spec.groups > 1 else "")

    def _refuses(self, spec: LayerSpec) -> str:
        if spec.kind == "linear" or spec.taps == 1:
            return "has a kernel of one tap; use svd"
        if min(self.inputs, self.outputs) < 1:
            return f"is given {self.inputs} by {self.outputs} clusters, and there must be at least 1 of each"
        if spec.in_channels % self.inputs or spec.out_channels % self.outputs:
            return (
                f"has {spec.in_channels} inputs and {spec.out_channels} outputs, which {self.inputs} by {self.outputs} "
                "clusters cannot share equally"
            )
        return ""

    def _block(self, spec: LayerSpec) -> tuple[int, int]:
        return spec.out_channels // self.outputs, spec.in_channels // self.inputs

    def _full(self, spec: LayerSpec) -> Ranks:
        t, s = self._block(spec)
        return min(s, t * spec.taps), min(t, s * spec.taps)

    def _stages(self, spec: LayerSpec, ranks: Ranks) -> dict[str, LayerSpec]:
        (inner, outer), blocks = ranks, self.inputs * self.outputs
        return {
            "order": LayerSpec("pick", spec.in_channels, spec.in_channels),
            "first": LayerSpec("conv", spec.in_channels, blocks * inner, groups=self.inputs),
            "core": replace(spec, in_channels=blocks * inner, out_channels=blocks * outer, groups=blocks),
            "turn": LayerSpec("pick", blocks * outer, blocks * outer),
            "last": LayerSpec("conv", blocks * outer, spec.out_channels, groups=self.outputs),
            "restore": LayerSpec("pick", spec.out_channels, spec.out_channels),
        }

    def _factors(self, kernel: Tensor, ranks: Ranks) -> Mapping[str, Tensor]:
        (inner, outer), g, b = ranks, self.inputs, self.outputs
        rows, columns, blocks = self._blocks(kernel)
        parts = [hooi(blocks[j][i], inner, outer) for i in range(g) for j in range(b)]  # inputs slowest
        last = torch.stack([part[2] for part in parts]).reshape(g, b, -1, outer)
        return {
            "order": columns,
            "first": torch.cat([part[0].T for part in parts])[:, :, None, None],
            "core": torch.cat([part[1] for part in parts]),
            "turn": torch.arange(g * b * outer).reshape(g, b, outer).transpose(0, 1).flatten(),
            "last": last.permute(1, 2, 0, 3).reshape(len(kernel), g * outer)[:, :, None, None],
            "restore": rows.argsort(),
        }

    def _blocks(self, kernel: Tensor) -> tuple[Tensor, Tensor, list[list[Tensor]]]:
        """Return the order of the outputs, that of the inputs, and the blocks by output and input cluster."""
        shared = kernel.flatten(2).norm(dim=2)
        rows = torch.from_numpy(equal(_directions(shared), self.outputs))
        columns = torch.from_numpy(equal(_directions(shared.T), self.inputs))
        sorted_ = kernel[rows][:, columns]
        return rows, columns, [list(part.chunk(self.inputs, 1)) for part in sorted_.chunk(self.outputs)]

    def _spectra(self, kernel: Tensor) -> list[tuple[Tensor, int, int]]:
        blocks = [block for row in self._blocks(kernel)[2] for block in row]
        into = torch.stack([squares(block.transpose(0, 1).flatten(1)) for block in blocks])
        out = torch.stack([squares(block.flatten(1)) for block in blocks])
        return [(into.sum(0), 0, 0), (out.sum(0), 0, 0)]

    def _floats(self, spec: LayerSpec, ranks: Ranks) -> int:
        channels = max(spec.in_channels, spec.out_channels)
        # Clustering assigns channels to places: a square of costs, and the distances that it comes from.
        return 3 * spec.weights + (3 + max(self.inputs, self.outputs)) * channels**2


def _directions(rows: Tensor) -> Floats:
    made: Floats = (rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-300)).numpy()
    return made
