"""Try a plan: cut a copy of the network by it and measure what comes out, here or in another process."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from penjing.core.plan import Plan
from penjing.core.protocols import Cost, Rewrite
from penjing.core.threads import one_thread
from penjing.graph.draft import Draft
from penjing.graph.graph import Graph
from penjing.rewrites.perform import perform
from penjing.training.state import chance


@dataclass(frozen=True, eq=False)
class Attempt:
    """Measures a cost of the network that a plan makes.

    It computes on one thread, and draws chance by the plan, wherever it runs, so that its last digit does not depend on
    who evaluates it: more cores are used by more workers.
    """

    model: nn.Module
    graph: Graph
    changes: Mapping[str, Rewrite]
    cost: Cost

    def __call__(self, plan: Plan) -> float:
        """Return the cost in its unit."""
        with one_thread(), chance(0, plan.key, torch.device("cpu")):
            return float(self.cost(Draft(self.graph, plan, partial(self._made, plan), self.model)))

    def _made(self, plan: Plan) -> nn.Module:
        model = copy.deepcopy(self.model)
        perform(model, self.graph, plan, self.changes)
        return model
