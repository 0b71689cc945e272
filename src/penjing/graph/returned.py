"""Which channels the modules of a network return."""

from __future__ import annotations

import numpy as np

from penjing.core.units import Ints
from penjing.graph.assemble import home
from penjing.graph.graph import Graph
from penjing.graph.program import returned_by, runs_of_modules


def channels_returned(graph: Graph) -> dict[str, Ints]:
    """Return, by the name of each module that returns one tensor with one dimension of channels, their units in order.

    A module that runs more than once returns the same each time, or is left out.
    """
    made = {value.born: value.units for value in graph.values}
    found: dict[str, list[Ints]] = {}
    for name, nodes in runs_of_modules(graph.program):
        results = returned_by(nodes)
        units = made.get(graph.positions[home(results[0]).name], ()) if len(results) == 1 else ()
        found.setdefault(name, []).append(units[0] if len(units) == 1 else np.empty(0, np.int64))
    return {
        name: runs[0]
        for name, runs in found.items()
        if len(runs[0]) and all(np.array_equal(runs[0], run) for run in runs)
    }
