"""Merge: put one layer in the place of a chain that no longer pays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from penjing.core import console
from penjing.core.errors import PlanError
from penjing.core.registry import register
from penjing.graph.chains import chains_in, prove_chains
from penjing.graph.folds import fold
from penjing.graph.graph import Graph
from penjing.graph.trace import trace
from penjing.steps.filed import file_certificate
from penjing.steps.original import drafted
from penjing.steps.patterns import matches
from penjing.steps.price import Pricer
from penjing.steps.state import Run, State

COUNTED = ("macs", "params")
"""What decides where the budget bounds nothing that a chain could save."""

Costs = Callable[[nn.Module], dict[str, float]]


@register("step")
@dataclass(frozen=True)
class merge:  # noqa: N801  (registered under its own name)
    """Contract chains of linear layers, as ``factorize`` makes them, into the one layer that they compute.

    A chain stays where it saves any of what the budget bounds, on the run's target: a measured latency by the table of
    timed layers, else what the model of the hardware tells; without such a bound, where it saves MACs or parameters.
    ``every`` merges all that can be. ``include`` and ``exclude`` are patterns of the chains' names. What the network
    computes stays the same, which is proved.
    """

    every: bool = False
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Take a single pattern for a list of one."""
        for name in ("include", "exclude"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, (getattr(self, name),))

    def __call__(self, state: State, run: Run) -> State:
        """Return the state with the chains merged that do not pay.

        Raises: PlanError when patterns are given and no chain matches.
        """
        with run.stage("merge") as said:
            graph = trace(state.model, *state.example, proof=False)
            found = [path for path in chains_in(state.model, graph) if matches((path,), self.include, self.exclude)]
            if not found and self.include != ("*",):
                raise PlanError(
                    f"merge: the network has no chain of layers with nothing between them that matches "
                    f"{list(self.include)}; a cut merges by itself what no longer pays."
                )
            costs = self._costs(graph, state, run)
            model, before, gone = state.copy_model(), costs(state.model), 0
            with console.bar("merge", len(found)) as step:
                for path in found:
                    whole = self._merged(model, path)
                    after = before if whole is None else costs(whole)
                    if whole is not None and (self.every or all(after[name] <= before[name] for name in before)):
                        model, before, gone = whole, after, gone + 1
                    step(1)
            if gone:
                certificate = prove_chains(graph, state.model, model)
                if not certificate.ok:
                    raise PlanError(f"The merged layers do not compute what their chains do: {certificate.verdict}.")
                file_certificate(run, certificate)
            said.append(f"{gone} of {len(found)} chains merged")
        return state.with_model(model)

    def _costs(self, graph: Graph, state: State, run: Run) -> Costs:
        """Return what tells a network's costs that are to shrink."""
        pricer = Pricer(graph, state, run)
        return lambda model: pricer.of(drafted(model, state.example), COUNTED)

    def _merged(self, model: nn.Module, path: str) -> nn.Module | None:
        """Return a copy with one chain merged; None where no single layer computes it."""
        try:
            return fold(model, [path])
        except PlanError:
            return None
