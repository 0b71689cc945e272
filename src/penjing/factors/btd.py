"""Block-term decomposition: a convolution as a bottleneck whose middle is grouped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from penjing.core.registry import register
from penjing.factors.base import Factorization, Ranks
from penjing.factors.layer import LayerSpec
from penjing.factors.spectra import basis

RIDGE = 1e-9
"""The ridge of each least-squares step, in units of the mean diagonal: blocks that fall together stay bounded."""

TOLERANCE = 1e-6

STARTS, SHARE = 3, 5
"""Random starts that are tried beside the orthogonal one, and how many times fewer sweeps a trial has."""


@register("factorization")
@dataclass(frozen=True)
class btd(Factorization):  # noqa: N801 - the name a recipe writes
    """Write a convolution as a sum of small Tucker blocks: 1 x 1, grouped k x k, 1 x 1.

    The rank is the number of blocks, each from ``into`` channels to ``out``: one block is a Tucker-2, blocks of one
    channel are a CP. The energies are those of orthogonal blocks, at most what the fit keeps: it starts there and
    at random, and alternates least squares over the factors.

    Paper: De Lathauwer, Decompositions of a Higher-Order Tensor in Block Terms II, 2008; Chen et al., Sharing Residual
    Units Through Collective Tensor Factorization, IJCAI 2018 (as a bottleneck).
    Differs: the blocks of the core that hold most are one of the starts.
    """

    axes: ClassVar[tuple[str, ...]] = ("blocks",)

    into: int = 4
    out: int = 4
    sweeps: int = 50

    def _refuses(self, spec: LayerSpec) -> str:
        if self.into < 1 or self.out < 1:
            return f"is given blocks from {self.into} to {self.out} channels, and both must be at least 1"
        if spec.taps == 1:
            return "has a kernel of one tap, whose blocks are no less than its singular values; use svd"
        if spec.in_channels < self.into or spec.out_channels < self.out:
            return (
                f"has {spec.in_channels} inputs and {spec.out_channels} outputs a group, fewer than a block from "
                f"{self.into} to {self.out} channels; make into and out smaller"
            )
        return ""

    def _full(self, spec: LayerSpec) -> Ranks:
        return (-(-spec.out_channels // self.out) * -(-spec.in_channels // self.into),)

    def _stages(self, spec: LayerSpec, ranks: Ranks) -> dict[str, LayerSpec]:
        (g,) = ranks
        return {
            "first": LayerSpec("conv", spec.in_channels, g * self.into),
            "core": replace(spec, in_channels=g * self.into, out_channels=g * self.out, groups=g),
            "last": LayerSpec("conv", g * self.out, spec.out_channels),
        }

    def _factors(self, kernel: Tensor, ranks: Ranks) -> Mapping[str, Tensor]:
        (g,) = ranks
        energies, out, into, core = self._orthogonal(kernel, g)
        if g < len(energies) and energies[g:].sum() > 1e-20 * energies.sum():
            starts = [(out, into, core), *(_random(out, into, core, seed) for seed in range(STARTS))]
            tried = [alternate(kernel, *start, max(self.sweeps // SHARE, 1)) for start in starts]
            best = min(tried, key=lambda made: float((kernel - whole(*made)).square().sum()))
            out, into, core = alternate(kernel, *best, self.sweeps)
        t, s = kernel.shape[:2]
        return {
            "first": into.permute(0, 2, 1).reshape(-1, s)[:, :, None, None],
            "core": core.flatten(0, 1),
            "last": out.permute(1, 0, 2).reshape(t, -1)[:, :, None, None],
        }

    def _spectra(self, kernel: Tensor) -> list[tuple[Tensor, int, int]]:
        return [(self._orthogonal(kernel, 1)[0], 0, 0)]

    def _orthogonal(self, kernel: Tensor, blocks: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Cut the core of the full Tucker-2 into blocks, and return those that hold most.

        Shapes: energies [full]; factors [blocks, out, q] and [blocks, in, p]; cores [blocks, q, p, height, width].
        """
        t, s, kh, kw = kernel.shape
        p, q = self.into, self.out
        rows, columns = -(-t // q), -(-s // p)
        u, v = torch.zeros(t, rows * q, dtype=kernel.dtype), torch.zeros(s, columns * p, dtype=kernel.dtype)
        u[:, :t] = basis(kernel.flatten(1), t)
        v[:, :s] = basis(kernel.transpose(0, 1).flatten(1), s)
        core = torch.einsum("tsij,tq,sp->qpij", kernel, u, v)
        core = core.reshape(rows, q, columns, p, kh, kw).transpose(1, 2).flatten(0, 1)
        energies = core.square().sum((1, 2, 3, 4))
        order = energies.argsort(descending=True, stable=True)
        chosen = order[:blocks]
        out = u.reshape(t, rows, q)[:, chosen // columns].transpose(0, 1)
        into = v.reshape(s, columns, p)[:, chosen % columns].transpose(0, 1)
        return energies[order], out, into, core[chosen]

    def _floats(self, spec: LayerSpec, ranks: Ranks) -> int:
        channels = max(spec.in_channels, spec.out_channels)
        start = 5 * spec.weights + 4 * channels**2
        if ranks == self._full(spec):
            return start
        wide = ranks[0] * max(self.into, self.out)
        # Sums over three factors hold products in between; how much that comes to was measured.
        return 32 * spec.weights + 4 * channels**2 + channels * (2 * spec.taps + 8) * wide + 3 * wide**2


def alternate(kernel: Tensor, out: Tensor, into: Tensor, core: Tensor, sweeps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lower the squared error by least squares over all output factors, all input factors, then core after core.

    Both factors of a block are kept orthonormal, which makes its core a projection of what the others leave.

    Shapes: as in ``btd._orthogonal``.
    """
    (t, s), g = kernel.shape[:2], len(core)
    q, p = core.shape[1:3]
    total = kernel.square().sum()
    before = total
    for _ in range(sweeps):
        read = torch.einsum("gqpij,gsp->gqsij", core, into)
        out = _solved(read.reshape(g * q, -1), kernel.reshape(t, -1)).reshape(g, q, t).transpose(1, 2)
        out, turn = torch.linalg.qr(out)
        core = torch.einsum("gqr,grpij->gqpij", turn, core)
        written = torch.einsum("gqpij,gtq->gptij", core, out)
        unfolded = kernel.transpose(0, 1).reshape(s, -1)
        into = _solved(written.reshape(g * p, -1), unfolded).reshape(g, p, s).transpose(1, 2)
        into, turn = torch.linalg.qr(into)
        core = torch.einsum("gpr,gqrij->gqpij", turn, core)
        rest = kernel - whole(out, into, core)
        fresh = []
        for u, c, v in zip(out, core, into, strict=True):
            change = torch.einsum("tsij,tq,sp->qpij", rest, u, v)
            rest = rest - torch.einsum("qpij,tq,sp->tsij", change, u, v)
            fresh.append(c + change)
        core = torch.stack(fresh)
        reached = rest.square().sum()
        if (before - reached).abs() <= TOLERANCE * reached or reached <= 1e-16 * total:
            break
        before = reached
    return out, into, core


def whole(out: Tensor, into: Tensor, core: Tensor) -> Tensor:
    """Return the kernel that the blocks add up to, [out, in, height, width]."""
    g, q, _, kh, kw = core.shape
    wide = torch.einsum("gqpij,gsp->gqsij", core, into).reshape(g * q, -1)
    made = out.transpose(0, 1).reshape(-1, g * q) @ wide
    return made.reshape(out.shape[1], into.shape[1], kh, kw)


def _random(out: Tensor, into: Tensor, core: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(part.shape, generator=generator, dtype=part.dtype) for part in (out, into, core)]
    return drawn[0], drawn[1], drawn[2]


def _solved(rows: Tensor, wanted: Tensor) -> Tensor:
    """Return x of least ‖wanted - xᵀ rows‖, [rows, wanted's rows]."""
    gram = rows @ rows.T
    gram += RIDGE * gram.diagonal().mean().clamp_min(1e-300) * torch.eye(len(gram), dtype=gram.dtype)
    found: Tensor = torch.linalg.solve(gram, rows @ wanted.T)
    return found
