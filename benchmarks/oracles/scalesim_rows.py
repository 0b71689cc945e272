"""What scalesim 3.0.0 counts for random small layers: cycles, and words from its SRAM and DRAM reports.

Runs in an environment of scalesim's own; it breaks with numpy 2:

    python -m venv oracle && oracle/bin/pip install scalesim==3.0.0 'numpy<2'
    PYTHONPATH=src oracle/bin/python benchmarks/oracles/scalesim_rows.py

The rows are stored as the tests read them. They are written as they are done; a run that stops goes on where it
stopped. scalesim knows no padding and rounds output sizes up: layers are drawn with their output, from which the input
follows. Its word is a byte; each operand has a double buffer of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import random
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from penjing.core.files import write_whole

DRAWN = [
    "dataflow", "rows", "columns", "in_channels", "out_channels", "kernel_h", "kernel_w", "stride", "out_h", "out_w",
    "in_kib", "weight_kib", "out_kib",
]  # fmt: skip
TOLD = [
    "cycles", "stalls", "sram_in_reads", "sram_weight_reads", "sram_out_writes", "dram_in_reads", "dram_weight_reads",
    "dram_out_writes",
]  # fmt: skip
DATAFLOWS = {"output_stationary": "os", "weight_stationary": "ws", "input_stationary": "is"}
ARRAYS = [(4, 4), (8, 8), (16, 16), (32, 32), (12, 14), (4, 16), (16, 4), (8, 24)]
MOST_LINES = 50_000
"""Cycles of the longest layer drawn; scalesim walks through each in Python."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=80, metavar="N", help="layers a dataflow (default 80)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("tests/targets/figures/scalesim.json"), metavar="FILE")
    options = parser.parse_args()
    rows: list[list[Any]] = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    chance = random.Random(options.seed)
    drawn = [draw(chance, dataflow) for _ in range(options.each) for dataflow in DATAFLOWS]
    if rows != [drawn[i] + row[len(DRAWN) :] for i, row in enumerate(rows)]:
        parser.error(f"{options.out} holds other layers than seed {options.seed} draws.")
    for layer in drawn[len(rows) :]:
        start = time.perf_counter()
        rows.append(layer + simulate(dict(zip(DRAWN, layer, strict=True))))
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(options.out, text(rows).encode())
        print(f"{len(rows)}/{len(drawn)} {rows[-1]} {time.perf_counter() - start:.1f} s", flush=True)


def text(rows: list[list[Any]]) -> str:
    """Return the file: one line a row, so that a change is seen where it is."""
    head = {"oracle": f"scalesim {version('scalesim')}", "date": time.strftime("%Y-%m-%d"), "columns": DRAWN + TOLD}
    lines = ",\n".join(json.dumps(row) for row in rows)
    return f'{json.dumps(head)[:-1]},\n"rows": [\n{lines}\n]}}\n'


def draw(chance: random.Random, dataflow: str) -> list[Any]:
    """Draw a layer, an array and buffers that scalesim walks through in seconds."""
    while True:
        rows, columns = chance.choice(ARRAYS)
        kernel_h, kernel_w = chance.choice([(1, 1), (3, 3), (3, 3), (5, 5), (1, 7), (7, 1), (2, 4)])
        stride = chance.choice([1, 1, 2, 3])
        ins, outs = chance.randint(1, 64), chance.randint(1, 96)
        out_h, out_w = chance.randint(1, 28), chance.randint(1, 28)
        if chance.random() < 0.25:  # fully connected: a batch of samples, one position each
            kernel_h = kernel_w = stride = out_w = 1
            ins, outs, out_h = chance.randint(8, 512), chance.randint(1, 256), chance.choice([1, 1, 2, 4, 8, 16])
        m, k, n = out_h * out_w, kernel_h * kernel_w * ins, outs
        across, down, along = {
            "output_stationary": (m, n, k), "weight_stationary": (k, n, m), "input_stationary": (k, m, n),
        }[dataflow]  # fmt: skip
        lines = (2 * rows + columns + along - 2) * -(-across // rows) * -(-down // columns)
        if lines <= MOST_LINES and m * k * n <= 8_000_000:
            kib = [chance.choice([1, 2, 4, 8, 16, 64]) for _ in range(3)]
            return [dataflow, rows, columns, ins, outs, kernel_h, kernel_w, stride, out_h, out_w, *kib]


def simulate(layer: dict[str, Any]) -> list[int]:
    """Return the figures ``TOLD`` of one layer."""
    from scalesim.scale_sim import scalesim

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "array.cfg").write_text(ARRAY.format(**{**layer, "dataflow": DATAFLOWS[layer["dataflow"]]}))
        height = (layer["out_h"] - 1) * layer["stride"] + layer["kernel_h"]
        width = (layer["out_w"] - 1) * layer["stride"] + layer["kernel_w"]
        facts = [height, width, *(layer[k] for k in ("kernel_h", "kernel_w", "in_channels", "out_channels", "stride"))]
        header = "Layer name, IFMAP H, IFMAP W, Filter H, Filter W, Channels, Num Filter, Strides,\n"
        (place / "layers.csv").write_text(f"{header}layer, {', '.join(map(str, facts))},\n")
        (place / "layout.csv").write_text("no layout is given,\n")
        with contextlib.redirect_stdout(io.StringIO()):
            simulator = scalesim(
                save_disk_space=True, verbose=False, config=str(place / "array.cfg"),
                topology=str(place / "layers.csv"), layout=str(place / "layout.csv"),
            )  # fmt: skip
            simulator.run_scale(top_path=folder)
        compute, access = (read(place / "run" / f"{name}_REPORT.csv") for name in ("COMPUTE", "DETAILED_ACCESS"))
    told = [compute["Total Cycles"], compute["Stall Cycles"]]
    for memory in ("SRAM", "DRAM"):
        told += [access[f"{memory} {what}"] for what in ("IFMAP Reads", "Filter Reads", "OFMAP Writes")]
    return [int(float(value)) for value in told]


def read(report: Path) -> dict[str, str]:
    """Return the one row of a report."""
    with report.open() as lines:
        return next(csv.DictReader(lines, skipinitialspace=True))


ARRAY = """[general]
run_name = run
[architecture_presets]
ArrayHeight = {rows}
ArrayWidth = {columns}
IfmapSramSzkB = {in_kib}
FilterSramSzkB = {weight_kib}
OfmapSramSzkB = {out_kib}
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Dataflow = {dataflow}
Bandwidth = 10
ReadRequestBuffer = 64
WriteRequestBuffer = 64
[layout]
IfmapCustomLayout = False
FilterCustomLayout = False
IfmapSRAMBankBandwidth = 10
IfmapSRAMBankNum = 10
IfmapSRAMBankPort = 2
FilterSRAMBankBandwidth = 10
FilterSRAMBankNum = 10
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = false
[run_presets]
InterfaceBandwidth = CALC
UseRamulatorTrace = False
"""

if __name__ == "__main__":
    main()
