"""Ridge regression from running moments, one group of columns at a time, with zeros held."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Moments:
    """Running sums, in float64, over rows of what is read and what is wanted."""

    rows: int = 0
    read: Tensor | float = 0.0
    wanted: Tensor | float = 0.0
    squares: Tensor | float = 0.0
    products: Tensor | float = 0.0

    def add(self, read: Tensor, wanted: Tensor) -> None:
        """Take in more rows: ``read`` [groups, rows, in], ``wanted`` [groups, rows, out].

        Products are taken in the rows' own precision and summed in float64.
        """
        self.rows += read.shape[1]
        self.read = self.read + read.double().sum(1)
        self.wanted = self.wanted + wanted.double().sum(1)
        self.squares = self.squares + (read.mT @ read).double()
        self.products = self.products + (read.mT @ wanted).double()

    def means(self, centred: bool = True) -> tuple[Tensor, Tensor]:
        """Return the mean of what is read, [groups, in], and wanted, [groups, out]; zeros where not ``centred``."""
        assert isinstance(self.read, Tensor) and isinstance(self.wanted, Tensor)
        share = 1 / self.rows if centred else 0.0
        return self.read * share, self.wanted * share

    def covariances(self, centred: bool = True) -> tuple[Tensor, Tensor]:
        """Return [groups, in, in] and [groups, in, out], about the means or, where not ``centred``, about zero."""
        assert isinstance(self.squares, Tensor) and isinstance(self.products, Tensor)
        read, wanted = self.means(centred)
        return (
            self.squares / self.rows - read[:, :, None] * read[:, None, :],
            self.products / self.rows - read[:, :, None] * wanted[:, None, :],
        )


def damped(covariance: Tensor, ridge: float) -> Tensor:
    """Return C + r I, [groups, in, in], r being ``ridge`` times the mean of C's diagonal."""
    # A unit that is never active has no power: the floor keeps its weights where they were.
    power = covariance.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
    return covariance + (max(ridge, 1e-9) * power)[:, None, None] * torch.eye(covariance.shape[1]).to(covariance)


def solve(covariance: Tensor, cross: Tensor, prior: Tensor, ridge: float) -> Tensor:
    """Return the W that minimises tr(WᵀCW - 2WᵀB) + r ||W - prior||², r being ``ridge`` times the mean of C's diagonal.

    An entry that is zero in the prior stays zero, the others of its column being the best under that.

    Shapes: ``covariance`` C [groups, in, in], ``cross`` B [groups, in, out], prior and result [groups, in, out].

    >>> c, b = torch.tensor([[[2.0, 1.0], [1.0, 2.0]]]), torch.tensor([[[3.0], [3.0]]])
    >>> solve(c, b, torch.ones(1, 2, 1), 0.0).flatten().tolist()
    [1.0, 1.0]
    >>> solve(c, b, torch.tensor([[[1.0], [0.0]]]), 0.0).flatten().tolist()
    [1.5, 0.0]
    """
    held = damped(covariance, ridge)
    slope = cross - covariance @ prior
    result = torch.zeros_like(prior)
    for group in range(len(prior)):
        thinned = (prior[group] == 0).any(0)
        full = (~thinned).nonzero()[:, 0]
        result[group, :, full] = prior[group, :, full] + torch.linalg.solve(held[group], slope[group, :, full])
        for column in thinned.nonzero()[:, 0].tolist():
            stays = prior[group, :, column].nonzero()[:, 0]
            change = torch.linalg.solve(held[group][stays][:, stays], slope[group, stays, column])
            result[group, stays, column] = prior[group, stays, column] + change
    return result
