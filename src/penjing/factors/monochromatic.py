"""A first layer whose filters share a few colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from penjing.core.errors import PlanError
from penjing.core.registry import register
from penjing.factors.base import Factorization, Ranks
from penjing.factors.cluster import equal
from penjing.factors.layer import LayerSpec
from penjing.factors.spectra import eigen

FEW = 4
"""Input channels of a picture, at most."""


@register("factorization")
@dataclass(frozen=True)
class monochromatic(Factorization):  # noqa: N801 - the name a recipe writes
    """Write a first layer as 1 x 1 to a few colours and k x k in which each filter reads one, and order its channels.

    The rank is the number of colours, and must divide the filters. A filter is written as one colour times one picture,
    so that even with a colour a filter the layer is only approached. The energies say what more each colour keeps.

    Paper: Denton et al., Exploiting Linear Structure Within Convolutional Networks, NIPS 2014, section 3.2.1.
    Differs: clusters are of equal size, as groups are, found by colour whatever its sign and weighted by what a filter
    holds; a cluster's colour is the best for its filters in least squares, not the mean.
    """

    axes: ClassVar[tuple[str, ...]] = ("colours",)
    exact: ClassVar[bool] = False

    def refuses(self, spec: LayerSpec) -> str:
        """Return why a layer cannot be factored so."""
        return super().refuses(spec) or ("is grouped, and a first layer is not" if spec.groups > 1 else "")

    def _refuses(self, spec: LayerSpec) -> str:
        if spec.in_channels > FEW or spec.taps == 1:
            return f"is no first layer of a picture: it reads {spec.in_channels} channels by {spec.taps} taps; use svd"
        return ""

    def checked(self, spec: LayerSpec, ranks: int | Sequence[int], name: str = "") -> Ranks:
        """Return the ranks as a tuple.

        Raises: PlanError for a rank out of range, or one that does not divide the filters.
        """
        (r,) = found = super().checked(spec, ranks, name)
        if spec.out_channels % r:
            shares = [n for n in range(1, spec.out_channels + 1) if spec.out_channels % n == 0]
            raise PlanError(
                f"{name or spec} has {spec.out_channels} filters, which {r} colours cannot share equally; "
                f"monochromatic takes {', '.join(map(str, shares))}."
            )
        return found

    def _full(self, spec: LayerSpec) -> Ranks:
        return (spec.out_channels,)

    def _stages(self, spec: LayerSpec, ranks: Ranks) -> dict[str, LayerSpec]:
        (r,) = ranks
        return {
            "colours": LayerSpec("conv", spec.in_channels, r),
            "filters": replace(spec, in_channels=r, groups=r),
            "order": LayerSpec("pick", spec.out_channels, spec.out_channels),
        }

    def _factors(self, kernel: Tensor, ranks: Ranks) -> Mapping[str, Tensor]:
        (r,) = ranks
        order = self._order(kernel, r)
        t, s, kh, kw = kernel.shape
        clusters = kernel.flatten(2)[order].reshape(r, t // r, s, kh * kw)
        colours = torch.stack([eigen(torch.einsum("tsk,tuk->su", c, c))[1][:, 0] for c in clusters])
        filters = torch.einsum("cs,ctsk->ctk", colours, clusters).reshape(t, 1, kh, kw)
        return {"colours": colours[:, :, None, None], "filters": filters, "order": order.argsort()}

    def _order(self, kernel: Tensor, clusters: int) -> Tensor:
        flat = kernel.flatten(2)
        _, vectors = torch.linalg.eigh(torch.einsum("tsk,tuk->tsu", flat, flat))
        colour = vectors[:, :, -1]
        # The outer product of a colour with itself is the same for both signs.
        held = torch.einsum("ts,tsk->tk", colour, flat).norm(dim=1)
        points = torch.einsum("ts,tu,t->tsu", colour, colour, held / held.max().clamp_min(1e-300)).flatten(1)
        return torch.from_numpy(equal(points.numpy(), clusters))

    def _spectra(self, kernel: Tensor) -> list[tuple[Tensor, int, int]]:
        t = len(kernel)
        kept, before, held = torch.zeros(t, dtype=kernel.dtype), 0, torch.zeros((), dtype=kernel.dtype)
        for r in (n for n in range(1, t + 1) if t % n == 0):
            reached = torch.maximum(held, self._factors(kernel, (r,))["filters"].square().sum())
            kept[before:r] = (reached - held) / (r - before)
            before, held = r, reached
        return [(kept, 0, 0)]

    def _floats(self, spec: LayerSpec, ranks: Ranks) -> int:
        return 3 * spec.weights + 3 * spec.out_channels**2
