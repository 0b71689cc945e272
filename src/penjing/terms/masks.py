"""Soft masks on structures, channels and whole residual blocks, that a penalty closes one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from penjing.graph import branches
from penjing.graph.gates import Gates
from penjing.graph.graph import Graph
from penjing.terms.clock import counter
from penjing.terms.fista import Fista

Pace: TypeAlias = Callable[[Mapping[str, Tensor], float], Mapping[str, Tensor]]
"""Given the masks and the share of the training that is done: the masks of which those are zero that are to go by then.
"""


PACES = 50
"""About how often in a training a pace is asked: it may price many plans."""


@dataclass(eq=False)
class Masks:
    """Multiply every unit of the ``sites`` (sizes by name) and the branches of every block by a factor m ≥ 0.

    All factors begin at 1 and are learned by FISTA with an L1 ``penalty``, one step every ``every`` of the ``steps``
    optimiser steps; the rate falls to a tenth twice. The penalty does not pull the mean of all factors below ``least``,
    by the share of the training that is done. Now and then ``pace`` may close more. No label is looked at
    (``task_weight`` 0).

    Shapes: masks [units] a site, [1] a block.
    """

    graph: Graph
    sites: Mapping[str, int]
    ends: branches.Ends
    lr: float
    penalty: float
    every: int
    steps: int
    pace: Pace | None = None
    least: Callable[[float], float] | None = None
    task_weight: float = 0.0
    _at: dict[str, nn.Parameter] = field(init=False, default_factory=dict)
    _mask: dict[str, nn.Parameter] = field(init=False, default_factory=dict)
    _step: nn.Parameter = field(init=False)
    _handles: list[RemovableHandle] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        """Make the masks."""
        self.gates = Gates(self.graph, list(self.sites))
        self.graph = self.gates.graph
        for name, size in {**self.sites, **dict.fromkeys(self.ends, 1)}.items():
            self._at[name] = nn.Parameter(torch.ones(size))
            self._mask[name] = nn.Parameter(torch.ones(size), requires_grad=False)
        self._step = counter()

    def attach(self, model: nn.Module) -> list[nn.Parameter]:
        """Set the masks into the model's forward."""
        self._handles = [
            *self.gates.attach(model, lambda _: self._at),
            *branches.attach(model, self.ends, lambda: self._at),
        ]
        return [*self._at.values(), *self._mask.values(), self._step]

    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimiser of the masks."""
        drop = max(self.every, self.steps // 3)
        least = self.least
        held = None if least is None else lambda count: least(count / max(self.steps, 1))
        self._fista = Fista(self._at.values(), self.lr, self.penalty, self.every, drop, held)
        return self._fista

    def __call__(self, x: Tensor, outputs: Any, y: Tensor | None) -> Tensor:
        """Return zero: the penalty acts in the proximal step alone."""
        return x.new_zeros(())

    @torch.no_grad()
    def after_step(self) -> None:
        """Read the masks where they have moved, and close what is to go by now."""
        self._step.add_(1)
        if int(self._step) % self.every:
            return
        for name, parameter in self._at.items():
            self._mask[name].copy_(self._fista.point(parameter))
        if self.pace is not None and int(self._step) // self.every % max(1, self.steps // self.every // PACES) == 0:
            for name, mask in self.pace(self.learned(), int(self._step) / max(self.steps, 1)).items():
                self._mask[name].copy_(mask)
                self._fista.close(self._at[name], self._mask[name] == 0)

    def detach(self) -> None:
        """Take the masks out of the forward; what was learned stays."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def learned(self) -> dict[str, Tensor]:
        """Return the masks by site and block."""
        return {name: mask.detach().cpu() for name, mask in self._mask.items()}
