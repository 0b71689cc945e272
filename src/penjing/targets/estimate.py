"""What a network costs on a target, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CAUSES = ("compute", "dram", "sram", "launch")
"""What may bound the time of a row."""


@dataclass(frozen=True)
class Row:
    """What one layer or pass costs, for the target's whole batch.

    ``kind`` is a layer's (``"conv"``, ``"linear"``) or a pass's; ``bound`` names what takes the time, one of
    ``CAUSES``; ``utilisation`` is the share of the array's multipliers that work while it runs, 0 to 1.

    Units: cycles, bytes, ms, mJ, mW as named; ``sram_bytes`` and ``dram_bytes`` are traffic, ``need_bytes`` is how
    much on-chip memory the row takes, and ``dynamic_mj`` the energy without what is drawn whatever runs.
    """

    name: str
    kind: str
    macs: int
    cycles: float
    utilisation: float
    sram_bytes: float
    dram_bytes: float
    need_bytes: float
    latency_ms: float
    energy_mj: float
    power_mw: float
    bound: str
    dynamic_mj: float


@dataclass(frozen=True)
class Estimate:
    """What a network costs on a target, for one inference of its batch.

    ``power_mw`` is the average at the target's frame rate, or of inferences back to back where none is stated;
    ``flash_bytes`` what weights and code take in storage, ``sram_bytes`` the most on-chip memory taken at one time.
    """

    rows: Sequence[Row]
    latency_ms: float
    energy_mj: float
    power_mw: float
    peak_power_mw: float
    sram_bytes: float
    dram_bytes: float
    flash_bytes: float

    def cost(self, name: str) -> float:
        """Return a cost by the name that a budget writes: latency, energy, power, peak_power, sram, ..."""
        return float(getattr(self, COSTS[name]))


COSTS = {
    "latency": "latency_ms",
    "energy": "energy_mj",
    "power": "power_mw",
    "peak_power": "peak_power_mw",
    "sram": "sram_bytes",
    "dram_bytes": "dram_bytes",
    "flash": "flash_bytes",
}
"""The costs that a model of hardware tells, and where they stand in an estimate."""

UNITS = {
    "latency": "ms", "energy": "mJ", "power": "mW", "peak_power": "mW", "sram": "bytes", "dram_bytes": "bytes",
    "flash": "bytes",
}  # fmt: skip
"""The units of these costs."""
