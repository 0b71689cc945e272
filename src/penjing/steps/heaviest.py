"""Which layer a cost mostly comes from, so that a refusal can name what holds the budget back."""

from __future__ import annotations

from collections.abc import Iterable

from penjing.core.protocols import Target
from penjing.costs.table import LayerTable, moves
from penjing.graph.draft import Draft

PARTS = {"latency": "latency_ms", "energy": "energy_mj", "dram_bytes": "dram_bytes", "sram": "need_bytes",
         "peak_power": "power_mw"}  # fmt: skip
"""Where the part of a layer stands in a row of a target's estimate."""


def heaviest(cost: str, draft: Draft, target: Target, table: LayerTable) -> tuple[str, float] | None:
    """Return the layer that most of a cost comes from, and how much; None where no layer has a part of its own."""
    parts = list(_parts(cost, draft, target, table))
    return max(parts, key=lambda part: part[1]) if parts else None


def _parts(cost: str, draft: Draft, target: Target, table: LayerTable) -> Iterable[tuple[str, float]]:
    if cost == "latency" and target.runtime:
        return [(layer.name, table.scale * table.time(layer)) for layer in [*draft.layers, *moves(draft)]]
    if cost in PARTS and not target.runtime:
        rows = target.estimate(draft).rows
        return [(row.name, float(getattr(row, PARTS[cost]))) for row in rows]
    if cost == "macs":
        return [(layer.name, float(layer.macs)) for layer in draft.layers]
    if cost == "params":
        return [(layer.name, float(layer.weights)) for layer in draft.layers]
    return []
