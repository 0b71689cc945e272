"""Refit a cut network, layer by layer, to what the original computes."""

from __future__ import annotations

from dataclasses import dataclass

from penjing.core.errors import PlanError
from penjing.core.registry import register
from penjing.graph.blocks import removed
from penjing.graph.trace import trace
from penjing.steps.pictures import need_some, told_count
from penjing.steps.state import Run, State
from penjing.steps.still_there import still_there
from penjing.training.reconstruct import reconstruct as refit_layers


@register("step")
@dataclass(frozen=True)
class reconstruct:  # noqa: N801  (registered under its own name)
    """Refit every layer, in least squares on ``images`` unlabelled training pictures, to what the original computes.

    No training: one regression a layer, in the order of execution (``penjing.training.reconstruct``). ``ridge`` holds
    the weights to where the cut left them, as a share of the mean power of what a layer reads.
    """

    images: int = 1024
    ridge: float = 1e-2

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        need_some("reconstruct", self.images)
        if not 0 <= self.ridge < float("inf"):
            raise PlanError(f"reconstruct: ridge is a share of what a layer reads, 0 or more; got {self.ridge}.")

    def __call__(self, state: State, run: Run) -> State:
        """Return the state with a refitted model."""
        data = state.data_for("reconstruct")
        with run.stage("reconstruct", told_count(self.images, data)) as said:
            model = state.copy_model()
            graph = trace(state.original, *state.example, proof=False)
            batches = data.calibration(self.images, run.seed, size=128)
            without = frozenset().union(*(removed(graph, plan) for plan in state.plans))
            refitted = refit_layers(
                state.original, model, graph, still_there(state, graph), batches,
                without=without, ridge=self.ridge, seed=run.seed,
            )  # fmt: skip
            there = len(graph.layers) - sum(len(graph.blocks[name].layers) for name in without)
            said.append(f"{len(refitted)} of {there} layers refitted")
        return state.with_model(model)
