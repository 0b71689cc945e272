"""Set more and more small weights to zero while the network trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from penjing.terms.clock import counter

Score: TypeAlias = Callable[[Tensor], Tensor]
"""Scores the weights of one layer, [n] to [n], higher meaning keep."""


def sparsity_at(progress: float, last: float, first: float = 0.0) -> float:
    """Return the share of zeros after this share of the way from ``first`` to ``last``.

    Paper: Zhu, Gupta, To Prune, or Not to Prune, 2017, eq. 1.

    >>> [round(sparsity_at(t, 0.8), 4) for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
    [0.0, 0.4625, 0.7, 0.7875, 0.8]
    """
    return last + (first - last) * (1 - min(max(progress, 0.0), 1.0)) ** 3


def smallest(scores: Tensor, count: int) -> Tensor:
    """Return a mask of the ``count`` smallest entries of [n]; of equal ones the first.

    >>> smallest(torch.tensor([3.0, 1.0, 1.0, 2.0]), 1).tolist()
    [False, True, False, False]
    """
    if count <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    edge = scores.kthvalue(min(count, len(scores))).values
    found = scores < edge
    found[(scores == edge).nonzero()[: count - int(found.sum()), 0]] = True
    return found


@dataclass(frozen=True)
class Ranking:
    """Which weights go first: those of the smallest ``score``, of each layer or of all layers ``together``."""

    score: Score
    together: bool

    def kept(self, weights: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
        """Return masks of what stays when this share of the weights is zero; of each layer at least one stays."""
        scores = {name: self.score(weight.detach().flatten()) for name, weight in weights.items()}
        if self.together:
            count = round(sparsity * sum(map(len, scores.values())))
            parts = smallest(torch.cat(list(scores.values())), count).split([len(s) for s in scores.values()])
        else:
            parts = tuple(smallest(s, round(sparsity * len(s))) for s in scores.values())
        found = {}
        for (name, score), gone in zip(scores.items(), parts, strict=True):
            stays = ~gone
            stays[score.argmax()] = True
            found[name] = stays.view(weights[name].shape)
        return found


@dataclass(eq=False)
class Gradual:
    """Hold a share of the weights at zero that grows along the cubic schedule, between the steps ``begin`` and ``end``.

    Every ``every`` steps all weights are ranked anew by the magnitudes they have or, where they are zero, had when they
    were set to zero: one that is larger than others are by then comes back with that magnitude. A weight at zero gets
    no gradient meanwhile. After ``end`` the zeros stay where they are. Adds nothing to the loss.

    Paper: Zhu, Gupta, To Prune, or Not to Prune, 2017.
    """

    names: Sequence[str]
    ranking: Ranking
    last: float
    begin: int
    end: int
    every: int
    first: float = 0.0
    _weights: dict[str, nn.Parameter] = field(init=False, repr=False, default_factory=dict)
    _kept: dict[str, nn.Parameter] = field(init=False, repr=False, default_factory=dict)
    _asleep: dict[str, nn.Parameter] = field(init=False, repr=False, default_factory=dict)
    _step: nn.Parameter = field(init=False, repr=False)
    _handles: list[RemovableHandle] = field(init=False, repr=False, default_factory=list)

    def attach(self, model: nn.Module) -> list[nn.Parameter]:
        """Take the weights; return which are kept, what the others were, and how many steps were taken."""
        self._weights = {name: model.get_parameter(name) for name in self.names}
        self._step = counter()
        for name, weight in self._weights.items():
            kept = torch.ones(weight.shape, dtype=torch.bool, device=weight.device)
            self._kept[name] = nn.Parameter(kept, requires_grad=False)
            self._asleep[name] = nn.Parameter(torch.zeros_like(weight), requires_grad=False)
            self._handles.append(weight.register_hook(self._masking(name)))
        return [*self._kept.values(), *self._asleep.values(), self._step]

    def _masking(self, name: str) -> Callable[[Tensor], Tensor]:
        return lambda gradient: gradient.masked_fill(~self._kept[name].data, 0)

    def __call__(self, x: Tensor, outputs: Any, y: Tensor | None) -> Tensor:
        """Return zero."""
        return x.new_zeros(())

    @torch.no_grad()
    def after_step(self) -> None:
        """Count the step, hold the zeros, which momentum moves, and rank anew when it is time."""
        self._step.data.add_(1)
        for name, weight in self._weights.items():
            weight.masked_fill_(~self._kept[name], 0)
        step = int(self._step)
        if self.begin < step <= self.end and ((step - self.begin) % self.every == 0 or step == self.end):
            self._rank(sparsity_at((step - self.begin) / (self.end - self.begin), self.last, self.first))

    def _rank(self, sparsity: float) -> None:
        whole = {
            name: torch.where(self._kept[name], weight, self._asleep[name]) for name, weight in self._weights.items()
        }
        for name, kept in self.ranking.kept(whole, sparsity).items():
            self._kept[name].copy_(kept)
            self._weights[name].copy_(whole[name].masked_fill(~kept, 0))
            self._asleep[name].copy_(whole[name].masked_fill(kept, 0))

    def detach(self) -> None:
        """Let the weights go, with their zeros."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._weights.clear()
