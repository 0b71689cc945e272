"""Optimal brain compression: single weights go in one shot, and those that stay make up for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from penjing.core.errors import PlanError
from penjing.core.plan import Plan
from penjing.core.registry import build, register
from penjing.core.sites import Site
from penjing.graph.blocks import removed
from penjing.graph.graph import Graph
from penjing.graph.trace import trace
from penjing.steps.filed import file_widths
from penjing.steps.pictures import need_some
from penjing.steps.prune import prune
from penjing.steps.state import Run, State
from penjing.steps.still_there import still_there
from penjing.training.reconstruct import reconstruct as refit_layers
from penjing.training.surgeon import Surgeon


@register("step")
@dataclass(frozen=True)
class obc:  # noqa: N801  (registered under its own name)
    """Set single weights to zero, layer by layer, and refit the others on ``images`` unlabelled pictures; no training.

    How many of each layer stay, ``criterion`` and ``allocator`` say under the budget, as in ``prune``; which, the
    layer itself: those go whose loss, once the others are refitted, moves least what it writes, on what it reads behind
    the layers thinned before it, away from what the original has there. The rest is then fitted in least squares as by
    ``reconstruct``, batch norm included; ``ridge`` holds it to the weights there were, as a share of the mean power of
    what a layer reads. Of filters of up to ``exact`` weights one goes at a time, of larger ones one in 64 at a time.
    ``pattern``, such as ``"2:4"``, lets two of every four weights along the input channels stay in all layers whose
    channels it divides, instead of what the budget says.

    A layer that cannot be refitted (a transposed convolution, a weight that serves twice) loses what the criterion
    says. Shapes do not change: report sparse weights.

    Raises: PlanError naming an option that cannot be; Infeasible when the budget cannot be met.
    Paper: Frantar, Singh, Alistarh, Optimal Brain Compression, NeurIPS 2022.
    Differs: targets are the original's, also behind thinned layers, and weights start from the best dense fit to them;
    sums of a residual are fitted, not the branch alone; kept weights are solved for at once, which is where the papers'
    updates end. Neurons are weighed by the batch norm behind them.
    """

    criterion: Any = "lamp"
    allocator: Any = "global"
    images: int = 1024
    ridge: float = 1e-2
    exact: int = 320
    pattern: str | None = None
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    budget: Mapping[str, Any] | str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        need_some("obc", self.images)
        if not 0 <= self.ridge < float("inf"):
            raise PlanError(f"obc: ridge is a share of what a layer reads, 0 or more; got {self.ridge}.")
        if self.exact < 0:
            raise PlanError(f"obc: exact is a number of weights, 0 for none; got {self.exact}.")
        _ = self._pattern

    @property
    def _pattern(self) -> tuple[int, int] | None:
        """The pattern as numbers.

        Raises: PlanError for what is none.
        """
        if self.pattern is None:
            return None
        match = re.fullmatch(r"([1-9]\d?):([1-9]\d?)", str(self.pattern))
        if match is None or int(match[1]) >= int(match[2]):
            raise PlanError(f"obc: pattern is how many of how many stay, such as '2:4'; got {self.pattern!r}.")
        return int(match[1]), int(match[2])

    def __call__(self, state: State, run: Run) -> State:
        """Return the state with a thinned and refitted network."""
        data = state.data_for("obc")
        with run.stage("obc") as said:
            model, sites, keep = self._counted(state, run)
            dense = {site.name: state.model.get_parameter(site.name).detach() for site in sites}
            graph = trace(state.original, *state.example, proof=False)
            refitted = refit_layers(
                state.original, model, graph, still_there(state, graph),
                data.calibration(self.images, run.seed, size=128),
                without=frozenset().union(*(removed(graph, plan) for plan in state.plans)), ridge=self.ridge,
                seed=run.seed, surgeon=Surgeon(dense, keep, self.exact, self._pattern),
            )  # fmt: skip
            now = trace(model, *state.example, proof=False)
            plan = _left(model, now, sites)
            file_widths(run, now, plan, ["weights"])
            left, whole = sum(len(entry.kept) for entry in plan), sum(entry.size for entry in plan)
            said.append(f"{len(plan)} layers thinned, {1 - left / max(whole, 1):.1%} of their weights zero")
            said.append(f"{len(refitted)} layers refitted")
        return state.with_model(model, plan)

    def _counted(self, state: State, run: Run) -> tuple[nn.Module, list[Site], dict[str, int]]:
        """Return the network to begin with, the sites to thin, and how many weights of each stay."""
        cut = prune(
            criterion=self.criterion, allocator=self.allocator, rewrite="weights", include=self.include,
            exclude=self.exclude, images=self.images, budget=self.budget,
        )  # fmt: skip
        sites = cut.sites(trace(state.model, *state.example), {"weights": build("rewrite", "weights")})
        if self.pattern is not None:
            return state.copy_model(), sites, {}
        found, _ = cut.decide(state, run)
        keep = {entry.site: len(entry.kept) for entry in found.plan}
        return found.model, [site for site in sites if site.name in keep], keep


def _left(model: nn.Module, graph: Graph, sites: list[Site]) -> Plan:
    """Return which weights of these sites are not zero."""
    kept = {site.name: model.get_parameter(site.name).detach().flatten().nonzero()[:, 0] for site in sites}
    return Plan.of("weights", {name: units.cpu().numpy() for name, units in kept.items()}, sites)
