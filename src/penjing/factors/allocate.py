"""Ranks for all layers of a network under one budget, by the product of what each keeps."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from penjing.core.errors import Infeasible, PlanError
from penjing.core.types import Floats


def eigenvalue_product(
    energies: Sequence[Floats], costs: Sequence[Floats], budget: float, least: Sequence[int] | None = None
) -> list[int]:
    """Return the rank of each layer that keeps ∏ E_l(r_l) large, with the costs together at most ``budget``.

    ``energies[l][j]`` is what rank j + 1 of layer l holds, falling; ``costs[l][j]`` what the layer costs at rank j + 1,
    in any unit, the dense layer where that is cheaper. From full ranks on, that layer gives up ranks whose share of
    its energy is least for what it saves. Ranks that save nothing go together with those that do.

    Raises: PlanError for energies or costs that are not of one length; Infeasible where the least ranks cost too much.
    Paper: Zhang et al., Accelerating Very Deep Convolutional Networks, TPAMI 2016, section 3.5.
    """
    least = [1] * len(energies) if least is None else least
    for n, (energy, cost) in enumerate(zip(energies, costs, strict=True)):
        if len(energy) != len(cost) or not len(energy) >= least[n] >= 1 or not np.isfinite([*energy, *cost]).all():
            raise PlanError(
                f"Layer {n} has {len(energy)} energies and {len(cost)} costs with a least rank of {least[n]}; "
                "it needs as many of one as of the other, all finite, and at least rank 1."
            )
    kept = [np.cumsum(energy) for energy in energies]
    ranks = [len(energy) for energy in energies]
    total = sum(float(cost[-1]) for cost in costs)

    def next_drop(n: int) -> tuple[float, int, int] | None:
        """Return the loss a unit of cost, the layer, and the rank that it would have."""
        now = ranks[n] - 1
        cheaper = np.flatnonzero(costs[n][least[n] - 1 : now] < costs[n][now])
        if not len(cheaper):
            return None
        to = int(cheaper[-1]) + least[n] - 1
        lost = (kept[n][now] - kept[n][to]) / kept[n][now] if kept[n][now] > 0 else 0.0
        return float(lost / (costs[n][now] - costs[n][to])), n, to + 1

    heap = [drop for n in range(len(ranks)) if (drop := next_drop(n))]
    heapq.heapify(heap)
    while total > budget and heap:
        _, n, rank = heapq.heappop(heap)
        total -= float(costs[n][ranks[n] - 1] - costs[n][rank - 1])
        ranks[n] = rank
        if drop := next_drop(n):
            heapq.heappush(heap, drop)
    total = sum(float(cost[rank - 1]) for cost, rank in zip(costs, ranks, strict=True))
    if total > budget * (1 + 1e-12):
        raise Infeasible(
            f"The least ranks cost {total:g} together, more than {budget:g}; raise the budget or factor more layers.",
            {"cost": total},
        )
    return ranks
