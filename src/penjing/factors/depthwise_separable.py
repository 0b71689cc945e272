"""A convolution as a depthwise and a pointwise one."""

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
class depthwise_separable(Factorization):  # noqa: N801 - the name a recipe writes
    """Write a convolution as k x k depthwise and 1 x 1, with as many filters an input channel as the rank.

    The kernels that read one input channel are a matrix of outputs by taps, and each has its own singular values: full
    rank is exact, rank 1 the block of MobileNet. Rank j holds the j-th of every channel.

    Paper: the inverse of Chollet, Xception, CVPR 2017, and of Howard et al., MobileNets, 2017; derived here.
    """

    def _refuses(self, spec: LayerSpec) -> str:
        return "has a kernel of one tap, and is pointwise already" if spec.taps == 1 else ""

    def _full(self, spec: LayerSpec) -> Ranks:
        return (min(spec.out_channels, spec.taps),)

    def _stages(self, spec: LayerSpec, ranks: Ranks) -> dict[str, LayerSpec]:
        wide = spec.in_channels * ranks[0]
        return {
            "depthwise": replace(spec, out_channels=wide, groups=spec.in_channels),
            "pointwise": LayerSpec("conv", wide, spec.out_channels),
        }

    def _factors(self, kernel: Tensor, ranks: Ranks) -> Mapping[str, Tensor]:
        (m,) = ranks
        t, s, kh, kw = kernel.shape
        u, values, vt = torch.linalg.svd(kernel.transpose(0, 1).flatten(2), full_matrices=False)
        root = values[:, :m].sqrt()
        # A singular vector and its negative are both right; the largest entry decides.
        peak = vt.gather(2, vt.abs().argmax(2, keepdim=True))[:, :m, 0]
        root = root * torch.where(peak < 0, -1.0, 1.0)
        depthwise = root[..., None] * vt[:, :m]
        pointwise = u[..., :m] * root[:, None]
        return {
            "depthwise": depthwise.reshape(s * m, 1, kh, kw),
            "pointwise": pointwise.permute(1, 0, 2).reshape(t, s * m, 1, 1),
        }

    def _spectra(self, kernel: Tensor) -> list[tuple[Tensor, int, int]]:
        return [(torch.linalg.svdvals(kernel.transpose(0, 1).flatten(2)).square().sum(0), 0, 0)]

    def _floats(self, spec: LayerSpec, ranks: Ranks) -> int:
        return 4 * spec.weights
