"""Gradual magnitude pruning: single weights become zero, more and more of them, during one training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from penjing.core.errors import Infeasible, PlanError
from penjing.core.plan import Plan
from penjing.core.registry import build, register
from penjing.core.sites import Site
from penjing.criteria.lamp import remaining
from penjing.graph.graph import Graph
from penjing.graph.trace import trace
from penjing.rewrites.perform import perform
from penjing.steps.filed import file_widths
from penjing.steps.price import Pricer
from penjing.steps.prune import prune
from penjing.steps.state import Run, State
from penjing.steps.train import train
from penjing.terms.gradual import Gradual, Ranking

HALVINGS = 20
"""How often the range of shares is halved when the budget sets the share."""


def _shares(weights: Tensor) -> Tensor:
    return remaining(weights.double().square())


RANKINGS: Mapping[str, Ranking] = {
    "uniform": Ranking(torch.abs, together=False),
    "global": Ranking(torch.abs, together=True),
    "lamp": Ranking(_shares, together=True),
}
"""Which weights go first, by the name that a recipe writes."""


@register("step")
@dataclass(frozen=True)
class gmp(train):  # noqa: N801  (registered under its own name)
    """Train while more and more of the smallest weights become zero: gradual magnitude pruning.

    The share of zeros grows to ``sparsity`` along s(t) = s (1 - (1 - t)³), t running from 0 to 1 between the shares
    ``begin`` and ``end`` of all steps; every ``every`` steps (by default a hundredth of that span) the weights are
    ranked anew, and one that was zero comes back where others have become smaller. What is left of the training is for
    recovery, with the zeros where they are. Without ``sparsity`` the budget sets it: the least share that keeps every
    bound. ``among`` is ``uniform``, the same share of each layer; ``global``, one threshold for all; or ``lamp``, one
    threshold for magnitudes made comparable. ``include`` and ``exclude`` choose layers as in ``prune``. All other
    options are those of ``train``. Biases and norms stay. Shapes do not change: report sparse weights.

    Raises: PlanError naming an option that cannot be; Infeasible when no share keeps the budget.
    Paper: Zhu, Gupta, To Prune, or Not to Prune: Exploring the Efficacy of Pruning for Model Compression, 2017.
    Differs: training is taught by the original, by default; the share grows from that of the zeros there are.
    """

    sparsity: float | None = None
    among: Literal["uniform", "global", "lamp"] = "uniform"
    begin: float = 0.0
    end: float = 0.7
    every: int | None = None
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    budget: Mapping[str, Any] | str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        if self.sparsity is not None and not 0 < self.sparsity < 1:
            raise PlanError(f"gmp: sparsity is the share of weights set to zero, between 0 and 1; got {self.sparsity}.")
        if self.among not in RANKINGS:
            raise PlanError(f"gmp: among is one of {', '.join(RANKINGS)}; got {self.among!r}.")
        if not 0 <= self.begin < self.end <= 1:
            raise PlanError(
                f"gmp: begin and end are shares of all steps, 0 <= begin < end <= 1; got {self.begin} and {self.end}."
            )
        if self.every is not None and self.every < 1:
            raise PlanError(f"gmp: every is a number of steps, 1 or more; got {self.every}.")
        if self.keep == "best":
            raise PlanError("gmp: keep best would go back to an epoch with fewer zeros; leave keep out.")

    def __call__(self, state: State, run: Run) -> State:
        """Return the state with a trained network, and as the last plan which of its weights are left."""
        data = state.data_for("gmp")
        with run.stage("gmp", f"{self.epochs} epochs") as said:
            chooser = self._chooser(state, run)
            sparsity = chooser.least() if self.sparsity is None else self.sparsity
            model = self.trained(state, run, said, self._term(chooser, sparsity, len(data.train)))
            chooser = self._chooser(state.with_model(model), run)
            if self.sparsity is None:
                sparsity = chooser.least(sparsity)
            plan = chooser.plan(sparsity)
            perform(model, chooser.graph, plan, {"weights": build("rewrite", "weights")})
            file_widths(run, chooser.graph, plan, ["weights"])
            said.append(f"{chooser.zeros():.1%} of the weights of {len(chooser.sites)} layers zero")
        return state.with_model(model, plan)

    def _chooser(self, state: State, run: Run) -> _Chooser:
        graph = trace(state.model, *state.example)
        cut = prune(rewrite="weights", include=self.include, exclude=self.exclude)
        sites = cut.sites(graph, {"weights": build("rewrite", "weights")})
        budget = self.budget if self.sparsity is None else {}
        return _Chooser(state.model, graph, sites, RANKINGS[self.among], Pricer(graph, state, run, budget))

    def _term(self, chooser: _Chooser, sparsity: float, samples: int) -> Gradual:
        steps = self.steps(samples) * self.epochs
        begin = math.floor(self.begin * steps)
        end = max(math.floor(self.end * steps), begin + 1)
        every = self.every or max(1, (end - begin) // 100)
        first = min(chooser.zeros(), sparsity)
        names = [site.name for site in chooser.sites]
        return Gradual(names, chooser.ranking, sparsity, begin, end, every, first)


@dataclass(frozen=True, eq=False)
class _Chooser:
    """Says which weights of a network stay at a share of zeros, and what share the budget wants."""

    model: nn.Module
    graph: Graph
    sites: list[Site]
    ranking: Ranking
    pricer: Pricer

    def _weights(self) -> dict[str, Tensor]:
        return {site.name: self.model.get_parameter(site.name) for site in self.sites}

    def zeros(self) -> float:
        """Return the share of these weights that are zero."""
        weights = self._weights().values()
        return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)

    def plan(self, sparsity: float) -> Plan:
        """Return which weights stay."""
        kept = self.ranking.kept(self._weights(), sparsity)
        units = {name: mask.flatten().nonzero()[:, 0].cpu().numpy() for name, mask in kept.items()}
        return Plan.of("weights", units, self.sites)

    def least(self, low: float = 0.0) -> float:
        """Return the smallest share of zeros, at least ``low``, that keeps every bound.

        Raises: PlanError without a bound; Infeasible when none does.
        """
        if not self.pricer.bounds:
            raise PlanError("gmp needs a sparsity, or a budget such as nonzero=0.2x to take it from.")
        if self._fits(low):
            return low
        if not self._fits(1.0):
            self._refuse()
        high = 1.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if self._fits(middle) else (middle, high)
        return high

    def _fits(self, sparsity: float) -> bool:
        costs = self.pricer(self.plan(sparsity))
        return all(bound.met(costs[bound.cost]) for bound in self.pricer.bounds)

    def _refuse(self) -> None:
        costs, shown = self.pricer(self.plan(1.0)), self.pricer.shown
        missed = [b for b in self.pricer.bounds if not b.met(costs[b.cost])]
        told = "; ".join(
            f"{b.cost} {b.asked} is {shown(b.cost, b.limit)}, lowest reachable {shown(b.cost, costs[b.cost])}"
            for b in missed
        )
        raise Infeasible(
            f"gmp: no share of zero weights meets the budget: {told}. Bound nonzero, or set sparsity.", costs
        )
