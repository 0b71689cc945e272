"""Optimal brain surgeon: which weights of a layer to set to zero so that what it writes changes least.

A layer's error is quadratic in its weights: (w - w*)ᵀ C (w - w*) for every neuron, C being the second moment of what
the layer reads and w* its best dense weights. Setting one weight to zero and adapting the others to that costs
w² / [C⁻¹] at its place on the diagonal, and is a closed form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from penjing.core.types import Layer
from penjing.training.patches import by_group

BLOCK = 128
"""So many columns choose their zeros together in a sweep."""

AT_ONCE = 1 << 24
"""Elements of inverses held at once, float64."""


@dataclass(frozen=True)
class Pattern:
    """Of every ``of`` weights in a row along the input channels ``stay`` are left, as sparse tensor cores want.

    ``kernel`` is how many positions the kernel has: weights of one position make a row.
    """

    stay: int
    of: int
    kernel: int = 1

    def order(self, columns: int) -> Tensor:
        """Return the columns, [channels x kernel], such that every ``of`` in a row belong together.

        >>> Pattern(1, 2, kernel=2).order(8).tolist()
        [0, 2, 1, 3, 4, 6, 5, 7]
        """
        return torch.arange(columns).view(-1, self.of, self.kernel).mT.reshape(-1)

    def suits(self, columns: int) -> bool:
        """Tell whether the input channels divide into rows."""
        return columns % (self.of * self.kernel) == 0


@dataclass(frozen=True)
class Removal:
    """The order in which weights go, ``columns`` [rows, n], and what each adds to the error of its row, [rows, n]."""

    columns: Tensor
    losses: Tensor


def greedy(weights: Tensor, hessian: Tensor, pattern: Pattern | None = None) -> Removal:
    """Remove, row by row, the weight that costs least, adapt the others, and again, until none may go.

    With a ``pattern`` the columns must be in its order, and its rows give up no more than they must.

    Shapes: ``weights`` [rows, columns], ``hessian`` [columns, columns].
    Paper: Frantar, Singh, Alistarh, Optimal Brain Compression, NeurIPS 2022, eq. 2 and algorithm 1; for half their H.
    """
    columns = weights.shape[1]
    inverse = torch.linalg.inv(hessian.double())
    parts = weights.double().split(max(1, AT_ONCE // columns**2))
    found = [_greedy(part.clone(), inverse.expand(len(part), -1, -1).clone(), pattern) for part in parts]
    return Removal(torch.cat([f.columns for f in found]), torch.cat([f.losses for f in found]))


def _greedy(w: Tensor, inverse: Tensor, pattern: Pattern | None) -> Removal:
    rows, columns = w.shape
    every = torch.arange(rows, device=w.device)
    barred = torch.zeros_like(w, dtype=torch.bool)
    steps = columns if pattern is None else columns // pattern.of * (pattern.of - pattern.stay)
    order, losses = torch.zeros(rows, steps, dtype=torch.int64, device=w.device), w.new_zeros(rows, steps)
    gone = torch.zeros_like(barred)
    for step in range(steps):
        cost = w.square() / inverse.diagonal(dim1=1, dim2=2)
        least, q = cost.masked_fill(barred, torch.inf).min(1)
        order[:, step], losses[:, step] = q, least
        column = inverse[every, :, q]
        pivot = column[every, q]
        w -= column * (w[every, q] / pivot)[:, None]
        inverse.baddbmm_(column[:, :, None], (column / -pivot[:, None])[:, None, :])
        inverse[every, q], inverse[every, :, q] = 0.0, 0.0
        inverse[every, q, q], w[every, q] = 1.0, 0.0
        gone[every, q] = barred[every, q] = True
        if pattern is not None:
            full = gone.view(rows, -1, pattern.of).sum(2) >= pattern.of - pattern.stay
            barred |= full.repeat_interleave(pattern.of, 1)
    return Removal(order, losses)


def sweep(weights: Tensor, hessian: Tensor, worth: Tensor, remove: int, pattern: Pattern | None = None) -> Tensor:
    """Choose zeros column by column, each block of columns its share, adapting the columns that come after.

    Shapes: ``weights`` [rows, columns], ``worth`` [rows] weighs the rows' errors; returns a mask of what stays.
    Paper: Frantar, Alistarh, SparseGPT, ICML 2023, algorithm 1.
    """
    w, columns = weights.double().clone(), weights.shape[1]
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian.double()), upper=True)
    pivots = factor.diagonal()
    stays = torch.ones_like(w, dtype=torch.bool)
    width = BLOCK if pattern is None else pattern.of
    for start in range(0, columns, width):
        block = slice(start, min(start + width, columns))
        cost = w[:, block].square() / pivots[block].square()
        if pattern is None:
            count = round(remove * block.stop / columns) - round(remove * start / columns)
            flat = (cost * worth[:, None]).flatten()
            gone = torch.zeros_like(flat, dtype=torch.bool)
            gone[flat.argsort(stable=True)[:count]] = True
            stays[:, block] = ~gone.view_as(cost)
        else:
            stays[:, block].scatter_(1, cost.argsort(dim=1, stable=True)[:, : pattern.of - pattern.stay], False)
        for j in range(block.start, block.stop):
            lost = torch.where(stays[:, j], 0.0, w[:, j]) / factor[j, j]
            w[:, j:] -= lost[:, None] * factor[j, j:]
    return stays


def choose(
    weights: Tensor, hessian: Tensor, worth: Tensor, keep: int, exact: int, pattern: Pattern | None = None
) -> Tensor:
    """Return a mask of the ``keep`` weights of a layer that stay, those of all neurons weighed against each other.

    Neurons that read up to ``exact`` values are thinned greedily, others in one sweep in which each group has its
    share. With a ``pattern`` that says how many stay.

    Shapes: ``weights`` and result [groups, columns, neurons], ``hessian`` [groups, columns, columns], ``worth``
    [groups, neurons].
    """
    groups, columns, _ = weights.shape
    remove = weights.numel() - keep
    order = torch.arange(columns) if pattern is None else pattern.order(columns)
    order = order.to(weights.device)
    rows, moments = weights.mT[:, :, order], hessian[:, order][:, :, order]
    if columns > exact:
        shares = [round(remove * (g + 1) / groups) - round(remove * g / groups) for g in range(groups)]
        parts = [sweep(rows[g], moments[g], worth[g], shares[g], pattern) for g in range(groups)]
        stays = torch.stack(parts)
    else:
        removals = [greedy(rows[g], moments[g], pattern) for g in range(groups)]
        stays = _cheapest(removals, worth, remove if pattern is None else None, columns)
    result = torch.empty_like(stays)
    result[:, :, order] = stays
    return result.mT


def _cheapest(removals: list[Removal], worth: Tensor, count: int | None, columns: int) -> Tensor:
    """Return [groups, rows, columns] of what stays after the ``count`` cheapest removals, or all of them.

    A row's removals go in its own order, so that a cheap one behind a dear one costs as much as that.
    """
    losses = torch.stack([removal.losses for removal in removals]) * worth[:, :, None]
    chosen = torch.ones_like(losses, dtype=torch.bool)
    if count is not None:
        chosen = torch.zeros_like(chosen)
        chosen.view(-1)[losses.cummax(2).values.flatten().argsort(stable=True)[:count]] = True
    where = torch.stack([removal.columns for removal in removals])
    stays = torch.ones(*where.shape[:2], columns, dtype=torch.bool, device=worth.device)
    return stays.scatter(2, where, ~chosen)


@dataclass(frozen=True, eq=False)
class Surgeon:
    """Chooses the zeros of layers when they are refitted.

    ``dense`` are the weights before anything was set to zero, by name, ``keep`` how many of each stay; other layers
    are left as they are. ``pattern`` as (stay, of) takes the place of ``keep``, in layers whose channels it divides.
    """

    dense: Mapping[str, Tensor]
    keep: Mapping[str, int]
    exact: int
    pattern: tuple[int, int] | None = None

    def __call__(
        self, layer: Layer, old: Tensor, fit: Callable[[Tensor], Tensor], hessian: Tensor, worth: Tensor
    ) -> Tensor:
        """Return the dense weights with zeros where the best fit misses them least, [groups, in, out].

        ``fit`` returns the best weights near those given, ``hessian`` is the second moment of what the layer reads,
        and ``worth`` [groups, out] weighs the errors of its neurons.
        """
        if layer.weight not in self.dense:
            return old
        pattern = None if self.pattern is None else Pattern(*self.pattern, kernel=math.prod(layer.kernel))
        if pattern is not None and not pattern.suits(old.shape[1]):
            return old
        dense = by_group(self.dense[layer.weight].to(old.device), layer).double()
        keep = self.keep.get(layer.weight, dense.numel())
        return dense * choose(fit(dense), hessian, worth, keep, self.exact, pattern)
