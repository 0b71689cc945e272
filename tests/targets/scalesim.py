"""What SCALE-Sim counted for random layers, and the same layers as targets see them."""

import json
from pathlib import Path
from typing import Any

from penjing.targets.shape import Shape
from penjing.targets.tiling import tiling

STORED = json.loads((Path(__file__).parent / "figures" / "scalesim.json").read_text())
ROWS: list[dict[str, Any]] = [dict(zip(STORED["columns"], row, strict=True)) for row in STORED["rows"]]
DATAFLOWS = ("output_stationary", "weight_stationary", "input_stationary")


def of(dataflow: str) -> list[dict[str, Any]]:
    return [row for row in ROWS if row["dataflow"] == dataflow]


def shape(row: dict[str, Any]) -> Shape:
    kernel, stride, out = (row["kernel_h"], row["kernel_w"]), (row["stride"],) * 2, (row["out_h"], row["out_w"])
    size = tuple((o - 1) * s + k for o, s, k in zip(out, stride, kernel, strict=True))
    return Shape(1, 1, row["in_channels"], row["out_channels"], kernel, stride, (1, 1), size, out, False, 0)


def product(row: dict[str, Any]) -> tuple[str, int, int, int, int, int]:
    one = shape(row)
    return row["dataflow"], one.m, one.k, one.n, row["rows"], row["columns"]


def crossing(row: dict[str, Any]) -> tuple[int, int]:
    """Bytes that cross to DRAM by our tiles, and in SCALE-Sim's order, of which the outputs are counted once."""
    memory = 1024 * (row["in_kib"] + row["weight_kib"] + row["out_kib"])
    ours = tiling(shape(row), 1, memory).dram_bytes
    assert ours is not None
    return ours, row["dram_in_reads"] + row["dram_weight_reads"] + shape(row).outputs
