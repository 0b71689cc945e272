"""What the cuts so far have left of the original: by its sites, and by what its modules return."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from penjing.core.protocols import Related, Term
from penjing.core.units import Kept, is_gone
from penjing.factors.chain import LAST
from penjing.graph.graph import Graph
from penjing.graph.returned import channels_returned
from penjing.graph.trace import trace
from penjing.steps.state import State


def still_there(state: State, graph: Graph) -> dict[str, Kept]:
    """Return what the cuts so far, one after the other, have left of each site of the original.

    Ranks within its layers are none of them; what the last stage of a chain writes is what the layer wrote.

    Raises: PlanError for a site that only an earlier cut made.
    """
    kept: dict[str, Kept] = {}
    layers = {layer.name for layer in graph.layers}
    for plan in state.plans:
        for name, units in plan.of_rewrite("channels").items():
            layer, _, stage = name.rpartition(".")
            if layer in layers:
                if stage not in LAST:
                    continue
                name = layer
            kept[name] = kept.get(name, np.arange(graph.site(name).size))[units]
    return kept


def channels_left(state: State) -> dict[str, NDArray[np.bool_]]:
    """Return, by the names of the modules that lost some, which of the channels are left that they return."""
    graph = trace(state.original, *state.example, proof=False)
    gone = graph.gone(still_there(state, graph))
    left = {name: ~is_gone(units, gone) for name, units in channels_returned(graph).items()}
    return {name: there for name, there in left.items() if not there.all()}


def relate(terms: Iterable[Term], state: State) -> None:
    """Tell the terms that ask which channels of the original are left, where it is the original that teaches."""
    asking = [term for term in terms if isinstance(term, Related)]
    if not asking or state.tutor is not None or not any(plan.of_rewrite("channels") for plan in state.plans):
        return
    left = channels_left(state)
    for term in asking:
        term.relate(left)
