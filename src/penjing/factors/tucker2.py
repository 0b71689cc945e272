"""Tucker decomposition along the two channel axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from penjing.core.registry import register
from penjing.factors.base import Factorization, Ranks
from penjing.factors.layer import LayerSpec
from penjing.factors.spectra import basis, squares

FEW = 4
"""Input channels up to which reducing them saves nothing worth a layer: a first layer."""

SWEEPS, TOLERANCE = 100, 1e-4


@register("factorization")
@dataclass(frozen=True)
class tucker2(Factorization):  # noqa: N801 - the name a recipe writes
    """Write a convolution as 1 x 1, k x k and 1 x 1, with a rank for the input channels and one for the output.

    The factors are orthonormal and start from the singular vectors of the unfoldings, then each is made the best for
    the other until the error stays. Its square is the squared weights less the squared core.

    Paper: Kim et al., Compression of Deep Convolutional Neural Networks, ICLR 2016, sections 3.1 and 3.2.
    """

    axes: ClassVar[tuple[str, ...]] = ("in", "out")

    def _refuses(self, spec: LayerSpec) -> str:
        if spec.taps == 1:
            return "has a kernel of one tap, whose Tucker-2 is the singular value decomposition; use svd"
        if spec.in_channels <= FEW:
            return f"reads {spec.in_channels} channels, and without reducing those it is svd's form output; use svd"
        return ""

    def _full(self, spec: LayerSpec) -> Ranks:
        t, s, k = spec.out_channels, spec.in_channels, spec.taps
        return min(s, t * k), min(t, s * k)

    def _stages(self, spec: LayerSpec, ranks: Ranks) -> dict[str, LayerSpec]:
        inner, outer = ranks
        return {
            "first": LayerSpec("conv", spec.in_channels, inner),
            "core": replace(spec, in_channels=inner, out_channels=outer),
            "last": LayerSpec("conv", outer, spec.out_channels),
        }

    def _factors(self, kernel: Tensor, ranks: Ranks) -> Mapping[str, Tensor]:
        first, core, last = hooi(kernel, *ranks)
        return {"first": first.T[:, :, None, None], "core": core, "last": last[:, :, None, None]}

    def _spectra(self, kernel: Tensor) -> list[tuple[Tensor, int, int]]:
        unfolded = [kernel.transpose(0, 1).flatten(1), kernel.flatten(1)]
        return [(squares(matrix), *matrix.shape) for matrix in unfolded]

    def _floats(self, spec: LayerSpec, ranks: Ranks) -> int:
        return 3 * spec.weights + 3 * max(spec.in_channels, spec.out_channels) ** 2


def hooi(kernel: Tensor, inner: int, outer: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return orthonormal factors and the core by higher-order orthogonal iteration.

    Ours and not a library's because only the left singular vectors of each unfolding are needed, and a Gram matrix has
    them in a twentieth of the time.

    Shapes: [in, inner], [outer, inner, height, width], [out, outer].
    """
    total = kernel.square().sum()
    first = basis(kernel.transpose(0, 1).flatten(1), inner)
    before = torch.tensor(float("inf"), dtype=kernel.dtype)
    for _ in range(SWEEPS):
        narrow = torch.einsum("tsij,sp->tpij", kernel, first)
        last = basis(narrow.flatten(1), outer)
        narrow = torch.einsum("tsij,tq->sqij", kernel, last)
        first = basis(narrow.flatten(1), inner)
        core = torch.einsum("sqij,sp->qpij", narrow, first)
        error = (1 - core.square().sum() / total).clamp_min(0).sqrt() if total > 0 else total
        if (before - error).abs() < TOLERANCE:
            break
        before = error
    return first, core, last
