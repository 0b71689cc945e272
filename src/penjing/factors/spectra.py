"""Singular values and vectors of unfoldings, by the eigenvectors of their smaller Gram matrix.

A kernel of 512 x 4608 has a Gram matrix of 512 x 512, whose eigenvectors cost a twentieth of the singular value
decomposition and lose nothing that matters: they are orthonormal to rounding whatever the spectrum, and the other
factor is the matrix times them, so that all of them together give the matrix back exactly. Only singular values below
1e-8 of the largest are noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Axis:
    """The squared singular values along one rank of a layer, falling, a row for each group.

    ``rows`` and ``columns`` are the size of the matrix that they belong to, 0 where they belong to none.

    Shapes: values [groups, full rank], float64.
    """

    name: str
    values: Tensor
    rows: int = 0
    columns: int = 0

    @property
    def energies(self) -> Tensor:
        """What each rank holds of the squared weights; with groups, rank j is the j-th of every group."""
        return self.values.sum(0)


def eigen(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues, falling and not negative, and the eigenvectors as columns with their signs fixed."""
    found, vectors = torch.linalg.eigh(gram)
    return found.flip(0).clamp_min(0), signed(vectors.flip(1))


def signed(columns: Tensor) -> Tensor:
    """Return the columns with the largest entry of each positive, so that a decomposition is one and not two."""
    largest = columns.gather(0, columns.abs().argmax(0, keepdim=True))
    return columns * torch.where(largest < 0, -1.0, 1.0)


def squares(matrix: Tensor) -> Tensor:
    """Return the squared singular values, falling.

    Shapes: [min(rows, columns)].
    """
    small = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    found: Tensor = torch.linalg.eigvalsh(small @ small.T)
    return found.flip(0).clamp_min(0)


def basis(matrix: Tensor, rank: int) -> Tensor:
    """Return the first left singular vectors as columns; ``rank`` is at most the number of rows."""
    return eigen(matrix @ matrix.T)[1][:, :rank]


def balanced(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the best factors of a rank, U √Σ and √Σ Vᵀ: training sees gradients of one size on both sides.

    Shapes: [rows, rank] and [rank, columns].
    """
    if matrix.shape[0] > matrix.shape[1]:
        right, left = balanced(matrix.T, rank)
        return left.T, right.T
    vectors = basis(matrix, rank)
    rest = vectors.T @ matrix
    root = rest.norm(dim=1).sqrt()
    return vectors * root, rest / torch.where(root > 0, root, 1.0)[:, None]
