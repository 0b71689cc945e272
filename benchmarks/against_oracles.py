"""The model of accelerators beside two oracles, whose figures are stored: SCALE-Sim 3.0.0 and ZigZag 3.9.1.

benchmarks/oracles/ has the scripts that made the figures, each in an environment of its own. SCALE-Sim walks through
every cycle of one array; tests/targets/test_scalesim.py holds the model against it. ZigZag searches mappings on
memories of any depth, with its own arrays and numbers, so that ranks are compared: with the numbers of the presets, and
with ZigZag's own memories, energies and bandwidth.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from scipy.stats import spearmanr

from alone import Alone, square
from penjing.core.files import write_whole
from penjing.targets import find
from penjing.targets.accelerator import Accelerator
from penjing.targets.systolic import cycles

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from targets.scalesim import DATAFLOWS, crossing, of, product

ORACLES = {"edge_tpu_like": "edge_tpu_like", "eyeriss_like": "eyeriss_v1"}
"""ZigZag's accelerators, and the presets beside them."""

NUMBERS: dict[str, dict[str, Any]] = {
    # 8 x 8 channels by 4 x 4 positions = 32 x 32 multipliers. A multiplication 0.04, a weight 0.01, a sum in and out
    # 0.04 pJ; 416 and 378 pJ for 256 bytes of 2 MiB; 700 and 750 pJ for 8 bytes of DRAM, of which one comes a cycle.
    "edge_tpu_like": {
        "rows": 32, "columns": 32, "sram_bytes": 2**21 + 2**15, "sram_pj": 1.6, "dram_pj": 90.0,
        "mac_pj": {"int8": 0.09}, "precision": "int8", "static_mw": 0.0,
    },
    # A multiplication 0.5, an input 1, a weight 1, a sum in and out 3.5 pJ; 100 and 130 pJ for 48 bytes of 1 MiB,
    # 10 to 25 for 16 bytes of the smaller ones; 1000 pJ for 8 bytes of DRAM.
    "eyeriss_like": {
        "sram_bytes": 2**20 + 2**16 + 2**13, "sram_pj": 2.0, "dram_pj": 125.0, "mac_pj": {"int8": 6.0},
        "precision": "int8", "static_mw": 0.0,
    },
}  # fmt: skip
"""What its files say, in our words; 8 bytes of DRAM a cycle in both."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/oracles/ranks.json"), metavar="FILE")
    options = parser.parse_args()
    stored = json.loads(Path("benchmarks/results/oracles/zigzag.json").read_text())
    rows = [dict(zip(stored["columns"], row, strict=True)) for row in stored["rows"]]
    table: dict[str, Any] = {"SCALE-Sim": {dataflow: walked(dataflow) for dataflow in DATAFLOWS}}
    print(json.dumps(table, indent=1))
    for oracle, preset in ORACLES.items():
        target = find(preset)
        assert isinstance(target, Accelerator)
        own = replace(target, **NUMBERS[oracle], dram_bandwidth=8 * target.clock_hz)
        theirs = [row for row in rows if row["accelerator"] == oracle]
        table[oracle] = {"the preset": held(target, theirs), "ZigZag's numbers": held(own, theirs)}
        print(oracle, json.dumps(table[oracle], indent=1))
    write_whole(options.out, json.dumps(table, indent=1).encode())


def walked(dataflow: str) -> dict[str, float]:
    """Return in how many layers our cycles are SCALE-Sim's, and how bytes that cross to DRAM compare."""
    rows = of(dataflow)
    ours, theirs = zip(*map(crossing, rows), strict=True)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "layers": len(rows),
        "equal_cycles": sum(cycles(*product(row)) - 1 == row["cycles"] for row in rows),
        "dram_rank_correlation": round(float(spearmanr(ours, theirs).statistic), 3),
        "dram_median_ratio": round(median(ratios), 3),
        "dram_least_ratio": round(min(ratios), 3),
        "dram_largest_ratio": round(max(ratios), 3),
    }


def held(target: Accelerator, theirs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return how energy and latency of each layer compare; ``macs`` is what counting them would reach.

    Theirs come from DRAM and go there, one by one, so ours do.
    """
    target = replace(target, resident=False)
    names = ("name", "in_channels", "out_channels", "groups", "kernel", "stride", "out")
    layers = [square(*(row[name] for name in names)) for row in theirs]
    ours = [target.estimate(Alone([layer])) for layer in layers]
    macs = [layer.macs for layer in layers]
    pairs = {
        "energy": ([row["energy_pj"] * 1e-9 for row in theirs], [one.energy_mj for one in ours]),
        "latency": (
            [row["cycles"] for row in theirs],
            [one.latency_ms * target.clock_hz / 1e3 for one in ours],
        ),
    }
    return {"layers": len(layers), **{name: compared(*pair, macs) for name, pair in pairs.items()}}


def compared(theirs: Sequence[float], ours: Sequence[float], macs: Sequence[int]) -> dict[str, float]:
    """Return rank correlations, of a MAC's cost as well, and how ours relates to theirs."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    each = [[cost / count for cost, count in zip(costs, macs, strict=True)] for costs in (theirs, ours)]
    found = {
        "rank_correlation": spearmanr(theirs, ours).statistic,
        "rank_correlation_a_mac": spearmanr(*each).statistic,
        "rank_correlation_of_macs": spearmanr(theirs, macs).statistic,
        "median_ratio": median(ratios),
        "least_ratio": min(ratios),
        "largest_ratio": max(ratios),
    }
    return {name: round(float(value), 3) for name, value in found.items()}


if __name__ == "__main__":
    main()
