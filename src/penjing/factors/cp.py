"""Canonical polyadic decomposition: a convolution as pointwise and depthwise ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from penjing.core.errors import MissingExtra, PlanError
from penjing.core.registry import register
from penjing.factors import cp_fit
from penjing.factors.base import Factorization, Ranks
from penjing.factors.layer import LayerSpec
from penjing.factors.svd import along


@register("factorization")
@dataclass(frozen=True)
class cp(Factorization):  # noqa: N801 - the name a recipe writes
    """Write a convolution as a sum of rank-one tensors: 1 x 1, depthwise, 1 x 1.

    With 3 ``modes`` the depthwise stage is k x k, with 4 it is k x 1 and then 1 x k. The ``stable`` fit bounds how far
    components may cancel one another; ``plain`` is alternating least squares as tensorly does it, which may diverge.
    The energies are those of an orthogonal decomposition into rank-one tensors, at most what a fit of that rank keeps.

    Paper: Lebedev et al., ICLR 2015 (4 modes); Phan et al., ECCV 2020 (stable).
    Differs: the sensitivity is a penalty, not a constraint (cp_fit.py).
    """

    modes: Literal[3, 4] = 3
    fit: Literal["stable", "plain"] = "stable"
    sweeps: int = 100

    def _refuses(self, spec: LayerSpec) -> str:
        if spec.taps == 1:
            return "has a kernel of one tap, and a matrix is decomposed by its singular values; use svd"
        return ""

    def _sizes(self, spec: LayerSpec) -> tuple[int, ...]:
        return (spec.out_channels, spec.in_channels, *(spec.kernel if self.modes == 4 else (spec.taps,)))

    def _full(self, spec: LayerSpec) -> Ranks:
        sizes = self._sizes(spec)
        return (math.prod(sizes) // max(sizes),)

    def _stages(self, spec: LayerSpec, ranks: Ranks) -> dict[str, LayerSpec]:
        (r,) = ranks
        inner = replace(spec, in_channels=r, out_channels=r, groups=r)
        if self.modes == 3:
            depthwise = {"depthwise": inner}
        else:
            depthwise = {"vertical": along(inner, 0), "horizontal": along(inner, 1)}
        return {
            "first": LayerSpec("conv", spec.in_channels, r),
            **depthwise,
            "last": LayerSpec("conv", r, spec.out_channels),
        }

    def _factors(self, kernel: Tensor, ranks: Ranks) -> Mapping[str, Tensor]:
        (r,) = ranks
        kh, kw = kernel.shape[2:]
        tensor = kernel if self.modes == 4 else kernel.flatten(2)
        fit = cp_fit.fit if self.fit == "stable" else plain
        out, into, *taps = fit(tensor, r, self.sweeps)
        ends = {"first": into.T[:, :, None, None], "last": out[:, :, None, None]}
        if self.modes == 3:
            return ends | {"depthwise": taps[0].T.reshape(r, 1, kh, kw)}
        return ends | {"vertical": taps[0].T.reshape(r, 1, kh, 1), "horizontal": taps[1].T.reshape(r, 1, 1, kw)}

    def _spectra(self, kernel: Tensor) -> list[tuple[Tensor, int, int]]:
        return [(cp_fit.sliced(kernel if self.modes == 4 else kernel.flatten(2))[0], 0, 0)]

    def _floats(self, spec: LayerSpec, ranks: Ranks) -> int:
        (r,) = ranks
        channels = max(spec.in_channels, spec.out_channels)
        full, sizes = self._full(spec)[0], self._sizes(spec)
        return 3 * full * sum(sizes) + (r < full) * (2 * channels * spec.taps * r + 4 * r * r + 2 * spec.weights)


def plain(tensor: Tensor, rank: int, sweeps: int = 100) -> list[Tensor]:
    """Return tensorly's alternating least squares from the same start, its weights spread over the factors.

    Raises: MissingExtra without tensorly; PlanError where its components run away.
    """
    try:
        import tensorly
        from tensorly.decomposition import parafac
    except ImportError:
        raise MissingExtra("The plain fit of cp", "tensorly", "lowrank") from None
    energies, start = cp_fit.sliced(tensor)
    if rank >= len(energies):
        return start
    begin = (None, [factor.numpy() for factor in cp_fit.stirred([factor[:, :rank] for factor in start])])
    try:
        with tensorly.backend_context("numpy"):
            weights, factors = parafac(tensor.numpy(), rank, n_iter_max=sweeps, init=begin, tol=1e-8)
    except ArithmeticError as error:
        raise PlanError(f"The plain fit of cp broke down at rank {rank} ({error}); write fit: stable.") from None
    except ValueError as error:  # numpy's LinAlgError
        raise PlanError(f"The plain fit of cp broke down at rank {rank} ({error}); write fit: stable.") from None
    found = [torch.from_numpy(factor.copy()) for factor in factors]
    found[0] = found[0] * torch.from_numpy(weights)
    if not all(bool(factor.isfinite().all()) for factor in found):
        raise PlanError(f"The plain fit of cp diverged at rank {rank}; write fit: stable.")
    return cp_fit.balance(found)
