"""What zigzag-dse 3.9.1 says of published layers: energy and cycles of the best mappings that it finds.

Runs in an environment of zigzag's own (six is a dependency that it does not name), some ten seconds a row:

    python -m venv oracle && oracle/bin/pip install zigzag-dse==3.9.1 six
    PYTHONPATH=src oracle/bin/python benchmarks/oracles/zigzag_rows.py

The accelerators are those that it ships as edge_tpu_like and eyeriss_like. It searches the order of the loops; how
they lie on the array is given: its own file for the first, rows of kernels by rows of outputs for the second. Rows are
written as they are done; a run that stops goes on where it stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import tempfile
import time
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from penjing.core.files import write_whole

SHAPE = ["name", "in_channels", "out_channels", "groups", "kernel", "stride", "out"]
LAYERS: list[tuple[str, int, int, int, int, int, int]] = [
    ("alexnet conv1", 3, 96, 1, 11, 4, 55),
    ("alexnet conv2", 96, 256, 2, 5, 1, 27),
    ("alexnet conv3", 256, 384, 1, 3, 1, 13),
    ("alexnet conv4", 384, 384, 2, 3, 1, 13),
    ("alexnet fc6", 9216, 4096, 1, 1, 1, 1),
    ("vgg16 conv1_1", 3, 64, 1, 3, 1, 224),
    ("vgg16 conv1_2", 64, 64, 1, 3, 1, 224),
    ("vgg16 conv2_2", 128, 128, 1, 3, 1, 112),
    ("vgg16 conv3_2", 256, 256, 1, 3, 1, 56),
    ("vgg16 conv4_2", 512, 512, 1, 3, 1, 28),
    ("vgg16 conv5_1", 512, 512, 1, 3, 1, 14),
    ("resnet50 conv1", 3, 64, 1, 7, 2, 112),
    ("resnet50 2a 1x1", 64, 256, 1, 1, 1, 56),
    ("resnet50 2b 3x3", 64, 64, 1, 3, 1, 56),
    ("resnet50 3a 1x1", 256, 512, 1, 1, 2, 28),
    ("resnet50 3b 3x3", 128, 128, 1, 3, 1, 28),
    ("resnet50 4b 1x1", 1024, 256, 1, 1, 1, 14),
    ("resnet50 4b 3x3", 256, 256, 1, 3, 1, 14),
    ("resnet50 5b 1x1", 512, 2048, 1, 1, 1, 7),
    ("resnet50 5b 3x3", 512, 512, 1, 3, 1, 7),
    ("resnet50 fc", 2048, 1000, 1, 1, 1, 1),
    ("resnet56 1 3x3", 16, 16, 1, 3, 1, 32),
    ("resnet56 2 3x3", 32, 32, 1, 3, 1, 16),
    ("resnet56 3 3x3", 64, 64, 1, 3, 1, 8),
    ("mobilenet dw 112", 32, 32, 32, 3, 1, 112),
    ("mobilenet dw 14", 512, 512, 512, 3, 1, 14),
    ("mobilenet pw 14", 512, 512, 1, 1, 1, 14),
    ("mobilenet pw 56", 64, 128, 1, 1, 1, 56),
]  # fmt: skip
TOLD = ["accelerator", "energy_pj", "cycles"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/oracles/zigzag.json"), metavar="FILE")
    options = parser.parse_args()
    rows: list[list[Any]] = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    done = {tuple(row[: len(SHAPE) + 1]) for row in rows}
    for layer in LAYERS:
        for accelerator in ("edge_tpu_like", "eyeriss_like"):
            if (*layer, accelerator) in done:
                continue
            start = time.perf_counter()
            rows.append([*layer, accelerator, *search(layer, accelerator)])
            write_whole(options.out, text(rows).encode())
            print(f"{rows[-1]} {time.perf_counter() - start:.1f} s", flush=True)


def text(rows: list[list[Any]]) -> str:
    """Return the file: one line a row, so that a change is seen where it is."""
    head = {"oracle": f"zigzag-dse {version('zigzag-dse')}", "date": time.strftime("%Y-%m-%d"), "columns": SHAPE + TOLD}
    lines = ",\n".join(json.dumps(row) for row in rows)
    return f'{json.dumps(head)[:-1]},\n"rows": [\n{lines}\n]}}\n'


def search(layer: tuple[str, int, int, int, int, int, int], accelerator: str) -> list[float]:
    """Return energy in pJ and cycles of one sample, of the mapping whose product of the two is least."""
    from zigzag.api import get_hardware_performance_zigzag

    kernel = layer[4]
    inputs = files("zigzag") / "inputs"
    mapping = str(inputs / "mapping" / "edge_tpu_like.yaml")
    with tempfile.TemporaryDirectory() as folder, quiet():
        if accelerator == "eyeriss_like":
            mapping = str(Path(folder) / "mapping.yaml")
            Path(mapping).write_text(ROW_STATIONARY.format(kernel=kernel, sets=max(12 // kernel, 1)))
        workload = Path(folder) / "workload.yaml"
        workload.write_text(json.dumps([described(layer)]))
        energy, cycles, *_ = get_hardware_performance_zigzag(
            str(workload), str(inputs / "hardware" / f"{accelerator}.yaml"), mapping, opt="EDP",
            dump_folder=f"{folder}/out", pickle_filename=f"{folder}/out/rows.pickle", loma_show_progress_bar=False,
        )  # fmt: skip
    return [float(energy), float(cycles)]


def described(layer: tuple[str, int, int, int, int, int, int]) -> dict[str, Any]:
    """Return the layer in zigzag's words; padding is part of the input, as in its own example."""
    _, ins, outs, groups, kernel, stride, out = layer
    return {
        "id": 0,
        "operator_type": "Conv",
        "equation": "O[b][g][k][oy][ox]+=W[g][k][c][fy][fx]*I[b][g][c][iy][ix]",
        "dimension_relations": [f"ix={stride}*ox+1*fx", f"iy={stride}*oy+1*fy"],
        "loop_dims": ["B", "G", "K", "C", "OY", "OX", "FY", "FX"],
        "loop_sizes": [1, groups, outs // groups, ins // groups, out, out, kernel, kernel],
        "operand_precision": {"W": 8, "I": 8, "O": 16, "O_final": 8},
        "operand_source": {"I": 0, "W": 0},
    }


@contextlib.contextmanager
def quiet() -> Any:
    """Keep its log and its bars off the terminal."""
    logging.disable(logging.CRITICAL)
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield
    logging.disable(logging.NOTSET)


ROW_STATIONARY = """- name: default
  spatial_mapping:
    D1:
      - OY, 14
    D2:
      - FY, {kernel}
      - K, {sets}
  memory_operand_links:
    O: O
    W: I2
    I: I1
"""

if __name__ == "__main__":
    main()
