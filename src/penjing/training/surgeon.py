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

from penjing.core.layers import Layer
from penjing.graph.patches import by_group

ROUNDS = 64
"""In so many rounds the weights of a large filter go."""

FAINT = 1e-8
"""What a direction of the inputs has at least of the power of the strongest."""

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

    def spare(self, cost: Tensor, gone: Tensor) -> Tensor:
        """Return which columns, in this order, may still go: of each row the cheapest, as many as it has to give up."""
        rows = cost.unflatten(1, (-1, self.of))
        left = self.of - self.stay - gone.unflatten(1, (-1, self.of)).sum(2, keepdim=True)
        spare: Tensor = rows.argsort(dim=2, stable=True).argsort(dim=2) < left
        return spare.flatten(1)

    def suits(self, columns: int) -> bool:
        """Tell whether the input channels divide into rows."""
        return columns % (self.of * self.kernel) == 0


@dataclass(frozen=True)
class Removal:
    """The order in which weights go, ``columns`` [rows, n], and what each adds to the error of its row, [rows, n]."""

    columns: Tensor
    losses: Tensor


def removal(weights: Tensor, hessian: Tensor, together: int = 1, pattern: Pattern | None = None) -> Removal:
    """Remove, row by row, the weights that cost least, ``together`` at a time, adapt the others, and again.

    Losses are those of one weight after the other in any case; only what is cheapest is looked up anew less often.
    With a ``pattern`` the columns must be in its order, and its rows give up no more than they must.

    Shapes: ``weights`` [rows, columns], ``hessian`` [columns, columns].
    Paper: Frantar, Singh, Alistarh, Optimal Brain Compression, NeurIPS 2022, the greedy solver for single
    weights and for groups of them; with H / 2 for their H.
    """
    columns = weights.shape[1]
    inverse = _inverse(hessian.double())
    parts = weights.double().split(max(1, AT_ONCE // columns**2))
    found = [_removal(part.clone(), inverse.repeat(len(part), 1, 1), together, pattern) for part in parts]
    return Removal(torch.cat([f.columns for f in found]), torch.cat([f.losses for f in found]))


def _inverse(hessian: Tensor) -> Tensor:
    """Return the inverse; directions that rounding has left without power, or with less than none, get a little."""
    powers, directions = torch.linalg.eigh(hessian)
    powers = powers.clamp_min(FAINT * float(powers[-1].clamp_min(1e-30)))
    inverse: Tensor = (directions / powers) @ directions.mT
    return inverse


def _removal(w: Tensor, inverse: Tensor, together: int, pattern: Pattern | None) -> Removal:
    rows, columns = w.shape
    every = torch.arange(rows, device=w.device)[:, None]
    gone = torch.zeros_like(w, dtype=torch.bool)
    total = columns if pattern is None else columns // pattern.of * (pattern.of - pattern.stay)
    order, losses = [], []
    for start in range(0, total, together):
        cost = (w.square() / inverse.diagonal(dim1=1, dim2=2)).masked_fill(gone, torch.inf)
        if pattern is not None:
            cost = cost.masked_fill(~pattern.spare(cost, gone), torch.inf)
        q = cost.topk(min(together, total - start), largest=False).indices
        among = inverse.gather(2, q[:, None].expand(-1, columns, -1))
        factor = torch.linalg.cholesky(among.gather(1, q[:, :, None].expand(-1, -1, q.shape[1])))
        change = torch.linalg.solve_triangular(factor, w[every, q][:, :, None], upper=False)
        half = torch.linalg.solve_triangular(factor, among.mT, upper=False)
        w -= (half.mT @ change)[:, :, 0]
        inverse.baddbmm_(half.mT, half, alpha=-1)
        for_all = every.expand_as(q)
        inverse[for_all, q], inverse[for_all, :, q] = 0.0, 0.0
        inverse[for_all, q, q], w[for_all, q], gone[for_all, q] = 1.0, 0.0, True
        order.append(q)
        losses.append(change[:, :, 0].square())
    return Removal(torch.cat(order, 1), torch.cat(losses, 1))


def choose(
    weights: Tensor, hessian: Tensor, worth: Tensor, keep: int, exact: int, pattern: Pattern | None = None
) -> Tensor:
    """Return a mask of the ``keep`` weights of a layer that stay, those of all neurons weighed against each other.

    Of neurons that read up to ``exact`` values one weight goes at a time, of others one in ``ROUNDS``. With a
    ``pattern`` that says how many stay.

    Shapes: ``weights`` and result [groups, columns, neurons], ``hessian`` [groups, columns, columns], ``worth``
    [groups, neurons].
    """
    columns = weights.shape[1]
    order = torch.arange(columns) if pattern is None else pattern.order(columns)
    order = order.to(weights.device)
    together = 1 if columns <= exact else math.ceil(columns / ROUNDS)
    groups = zip(weights.mT[:, :, order], hessian[:, order][:, :, order], strict=True)
    removals = [removal(rows, moments, together, pattern) for rows, moments in groups]
    stays = _cheapest(removals, worth, weights.numel() - keep if pattern is None else None, columns)
    result = torch.empty_like(stays)
    result[:, :, order] = stays
    return result.mT


def _cheapest(removals: list[Removal], worth: Tensor, count: int | None, columns: int) -> Tensor:
    """Return [groups, rows, columns] of what stays after the ``count`` cheapest removals, or all of them.

    A row's removals go in its own order, so that a cheap one behind a dear one costs as much as that.
    """
    losses = torch.stack([one.losses for one in removals]) * worth[:, :, None]
    chosen = torch.ones_like(losses, dtype=torch.bool)
    if count is not None:
        chosen = torch.zeros_like(chosen)
        chosen.view(-1)[losses.cummax(2).values.flatten().argsort(stable=True)[:count]] = True
    where = torch.stack([one.columns for one in removals])
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
