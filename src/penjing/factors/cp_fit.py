"""Sums of rank-one tensors: an orthogonal start, and alternating least squares that cannot run away.

The best sum of R rank-one tensors may not exist: components then grow without bound and cancel each other, and a
network that holds them cannot be trained. Here the fit pays for its *sensitivity*, the expected squared change of the
tensor under noise of unit variance in the factors; since neither it nor the error is ever negative, and each sweep
lowers their sum, both stay below what they were at the start.

Shapes: a tensor of N axes has N factors, [size of the axis, R].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from penjing.factors.spectra import eigen, signed

Factors = list[Tensor]

PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Weights of the sensitivity, in units of the squared tensor over the sensitivity at the start.

They rise from the plain fit: a fit that begins with a heavy one loses components, and zeros never come back.
"""

SLACK = 1.05
"""How much more error than the plain fit's is accepted for less sensitivity."""

LARGEST = 1.25
"""The norm of a component, in norms of the tensor, from which on it is there to be cancelled."""

SHARE = 4
"""How many times fewer sweeps each weight has than the plain fit, where it goes on from."""

NOISE = 0.01
"""The share of noise added to the start, which may lie on a saddle."""


def sliced(tensor: Tensor) -> tuple[Tensor, Factors]:
    """Write a tensor exactly as orthogonal rank-one components, and return what each holds of its square, falling.

    The smallest axis is rotated to its singular vectors, and each slice is decomposed in turn; a matrix by its
    singular values. The first R components are thus a fit of rank R whose squared error is the energy of the others.

    Shapes: [n] and one [size, n] an axis, with n the product of all sizes but the largest.
    """
    if tensor.ndim == 2:
        u, s, vt = torch.linalg.svd(tensor, full_matrices=False)
        turn = torch.where((signed(u) * u).sum(0) < 0, -1.0, 1.0)
        return s.square(), balance([u * turn * s, vt.T * turn])
    axis = min(range(tensor.ndim), key=lambda n: tensor.shape[n])
    moved = tensor.movedim(axis, 0)
    flat = moved.flatten(1)
    _, turn = eigen(flat @ flat.T)
    slices = (turn.T @ flat).reshape(moved.shape)
    parts = [sliced(piece) for piece in slices]
    energies = torch.cat([part[0] for part in parts])
    order = energies.argsort(descending=True, stable=True)
    others = [torch.cat(columns, 1)[:, order] for columns in zip(*(part[1] for part in parts), strict=True)]
    counts = torch.tensor([len(part[0]) for part in parts])
    own = turn.repeat_interleave(counts, dim=1)[:, order]
    factors = [*others[:axis], own, *others[axis:]]
    return energies[order], balance(factors)


def fit(tensor: Tensor, rank: int, sweeps: int = 100) -> Factors:
    """Return the stable fit of a rank: the least sensitive one whose error is within 5 % of plain least squares'.

    It is never worse than the orthogonal start, and at full rank it is the start, which is exact. Where the plain fit
    runs away, the error that can be had without that decides.

    Paper: Phan et al., Stable Low-Rank Tensor Decomposition for Compression of CNNs, ECCV 2020.
    Differs: the paper minimises the sensitivity under a bound on the error by sequential programs; this adds it to the
    error, which makes each step a ridge regression, and takes the largest weight that meets the same bound.
    """
    energies, start = sliced(tensor)
    if rank >= len(energies):
        return start
    start = [factor[:, :rank] for factor in start]
    total = energies.sum()
    begun = energies[rank:].sum()
    if total == 0 or begun <= 1e-20 * total:
        return start
    current = als(tensor, stirred(start), 0.0, sweeps)
    wanted = SLACK**2 * torch.minimum(squared_error(tensor, current), begun)
    found, unit, limit = start, total / sensitivity(start), LARGEST * total.sqrt()
    for penalty in (0.0, *PENALTIES):
        if penalty:
            current = als(tensor, current, float(penalty * unit), max(sweeps // SHARE, 1))
        reached = squared_error(tensor, current)
        if found is not start and reached > wanted:
            break
        if largest(current) <= limit and reached < begun:
            found = current
    return found


def als(tensor: Tensor, factors: Sequence[Tensor], weight: float, sweeps: int, tolerance: float = 1e-8) -> Factors:
    """Lower the squared error plus ``weight`` times the sensitivity, one factor after the other.

    It ends where a sweep changes the sum by less than ``tolerance`` of it. Norms are spread evenly after each sweep,
    which leaves the components as they are.
    """
    factors = list(factors)
    total = tensor.square().sum()
    before = torch.tensor(float("inf"), dtype=tensor.dtype)
    for _ in range(sweeps):
        for n in range(len(factors)):
            found = products(tensor, factors, n)
            gram = _gram(factors, n) + torch.diag(weight * _stiffness(factors, n))
            # A hair of ridge, so that components that fall together leave a system that can be solved.
            gram += 1e-13 * gram.diagonal().mean().clamp_min(1e-300) * torch.eye(len(gram), dtype=gram.dtype)
            factors[n] = torch.linalg.solve(gram, found.T).T
        # The last factor solves its own equations, so that the error needs no other pass over the tensor.
        error = total - 2 * (factors[-1] * found).sum() + (_gram(factors, -1) * (factors[-1].T @ factors[-1])).sum()
        factors = balance(factors)
        reached = error + weight * sensitivity(factors)
        if (before - reached).abs() <= tolerance * reached.abs() or reached <= 1e-16 * total:
            break
        before = reached
    return factors


def products(tensor: Tensor, factors: Sequence[Tensor], axis: int) -> Tensor:
    """Return the tensor unfolded along an axis times the Khatri-Rao product of the other factors.

    Along a short axis it goes slice by slice: the product of two channel axes would not fit into memory.

    Shapes: [size, R].
    """
    if axis < 2:
        others = [factor for n, factor in enumerate(factors) if n != axis]
        return tensor.movedim(axis, 0).flatten(1) @ khatri_rao(others)
    others = [factor for n, factor in enumerate(factors) if n not in (0, axis)]
    inner = khatri_rao(others)
    return torch.stack([(factors[0] * (piece.flatten(1) @ inner)).sum(0) for piece in tensor.unbind(axis)])


def khatri_rao(factors: Sequence[Tensor]) -> Tensor:
    """Return the products of columns, the first factor's rows slowest.

    Shapes: [product of sizes, R].
    """
    made = factors[0]
    for factor in factors[1:]:
        made = (made[:, None] * factor[None]).flatten(0, 1)
    return made


def whole(factors: Sequence[Tensor]) -> Tensor:
    """Return the tensor that the components add up to."""
    sizes = [len(factor) for factor in factors]
    return (factors[0] @ khatri_rao(factors[1:]).T).reshape(sizes)


def squared_error(tensor: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """Return the squared distance between a tensor and what the components add up to."""
    return (tensor - whole(factors)).square().sum()


def sensitivity(factors: Sequence[Tensor]) -> Tensor:
    """Return the expected squared change of the tensor under factor noise, over the variance of that noise."""
    return sum(
        (len(factors[n]) * _squares([f for m, f in enumerate(factors) if m != n]).sum() for n in range(len(factors))),
        torch.zeros((), dtype=factors[0].dtype),
    )


def largest(factors: Sequence[Tensor]) -> Tensor:
    """Return the norm of the largest component."""
    return _squares(factors).max().sqrt()


def balance(factors: Sequence[Tensor]) -> Factors:
    """Give the columns of one component one norm in every factor."""
    norms = torch.stack([factor.norm(dim=0) for factor in factors])
    mean = norms.log().mean(0).exp()
    return [factor * torch.where(norm > 0, mean / norm, 0.0) for factor, norm in zip(factors, norms, strict=True)]


def stirred(factors: Sequence[Tensor]) -> Factors:
    """Add a little noise, always the same."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for factor in factors:
        noise = torch.randn(factor.shape, generator=generator, dtype=factor.dtype)
        made.append(factor + NOISE * factor.square().mean().sqrt() * noise)
    return made


def _gram(factors: Sequence[Tensor], axis: int) -> Tensor:
    made = torch.ones(factors[0].shape[1], factors[0].shape[1], dtype=factors[0].dtype)
    for n, factor in enumerate(factors):
        if n != axis % len(factors):
            made = made * (factor.T @ factor)
    return made


def _stiffness(factors: Sequence[Tensor], axis: int) -> Tensor:
    """Return what the sensitivity is, for each component, per squared norm of one factor's column."""
    others = [n for n in range(len(factors)) if n != axis]
    total = torch.zeros(factors[0].shape[1], dtype=factors[0].dtype)
    for noisy in others:
        total = total + len(factors[noisy]) * _squares([factors[n] for n in others if n != noisy], total)
    return total


def _squares(factors: Sequence[Tensor], like: Tensor | None = None) -> Tensor:
    """Return, for each component, the product of its squared norms."""
    made = torch.ones_like(factors[0][0] if factors else like)  # type: ignore[arg-type]
    for factor in factors:
        made = made * factor.square().sum(0)
    return made
