"""AlexNet and VGG-16 on Eyeriss: what the model says, and what the chip was measured to do.

Paper: Chen et al., Eyeriss: An Energy-Efficient Reconfigurable Accelerator for Deep CNNs, JSSC 52(1), 2017. The
convolutions alone, AlexNet at 35 frame/s and 278 mW with a batch of 4, VGG-16 at 0.7 frame/s and 236 mW with a batch
of 3. Time and power of the layers of AlexNet are its table V, as the tests of nn_dataflow (Stanford, BSD) restate it.

The model lets each layer be mapped for speed. The chip's mappings were chosen for energy, and the paper lists those of
AlexNet (recalled; they fill 154, 135, 156, 156 and 156 elements, as its table V says), of which the passes are counted
here one by one: how long the elements work, and how long four partial sums a cycle (assumed: one word of 64 bit)
take to or from the buffer. We know none of VGG-16; for it, this tells what follows where a pass adds up 1, 2 or 4 input
channels before it returns its sums.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from alone import Alone
from penjing import inspect, zoo
from penjing.core.files import write_whole
from penjing.core.layers import Layer
from penjing.targets import find
from penjing.targets.accelerator import Accelerator
from penjing.targets.estimate import Row
from penjing.targets.systolic import up

SUMS_A_CYCLE = 4


class Mapping(NamedTuple):
    """A mapping by the paper's letters.

    Of a picture strip e rows high, a pass takes n pictures, p * t filters and q * r channels; an element interleaves p
    and q of them, r and t sets of elements lie side by side, and m channels of outputs stay in the buffer.
    """

    m: int
    n: int
    e: int
    p: int
    q: int
    r: int
    t: int


class Published(NamedTuple):
    """What the paper says of a network, and of its layers: milliseconds of the whole batch, processing alone."""

    size: int
    batch: int
    frames_a_second: float
    power_mw: float
    mappings: dict[str, Mapping]
    processing_ms: dict[str, float]
    power_of_layers_mw: dict[str, float]


PAPER = {
    "alexnet": Published(
        227, 4, 35.0, 278.0,
        {
            "conv1": Mapping(96, 1, 7, 16, 1, 1, 2), "conv2": Mapping(64, 1, 27, 16, 2, 1, 1),
            "conv3": Mapping(64, 4, 13, 16, 4, 1, 4), "conv4": Mapping(64, 4, 13, 16, 3, 2, 2),
            "conv5": Mapping(64, 4, 13, 16, 3, 2, 2),
        },
        {"conv1": 16.5, "conv2": 39.2, "conv3": 21.8, "conv4": 16.0, "conv5": 10.0},
        {"conv1": 332, "conv2": 288, "conv3": 266, "conv4": 235, "conv5": 236},
    ),
    "vgg16": Published(224, 3, 0.7, 236.0, {}, {}, {}),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/eyeriss.json"), metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    told = {}
    for name, paper in PAPER.items():
        graph = inspect(getattr(zoo, name)(), torch.zeros(1, 3, paper.size, paper.size))
        told[name] = network([layer for layer in graph.layers if layer.kind == "conv"], paper)
        print(name, json.dumps(told[name], indent=1))
    write_whole(options.out, json.dumps(told, indent=1).encode())


def network(layers: Sequence[Layer], paper: Published) -> dict[str, Any]:
    """Return ours beside the published, for the network and for each layer."""
    target = find("eyeriss_v1")
    assert isinstance(target, Accelerator)
    target = target.at(batch=paper.batch)
    estimate = target.estimate(Alone(layers))
    rate = 1e3 * paper.batch / estimate.latency_ms
    facts: dict[str, Any] = {
        "conv_macs": sum(layer.macs for layer in layers),
        "frames_a_second": {"ours": rate, "published": paper.frames_a_second, "ratio": rate / paper.frames_a_second},
        "chip_power_mw": {"ours": on_chip(target, estimate.rows), "published": paper.power_mw},
        "dram_values_a_mac": estimate.dram_bytes / 2 / sum(layer.macs for layer in layers) / paper.batch,
        "sums_bound_frames_a_second": {q: 1e3 / bound_by_sums(layers, q, target.clock_hz) for q in (1, 2, 4)},
    }
    rows = []
    for layer, row in zip(layers, estimate.rows, strict=True):
        facts_of_layer = {
            "layer": layer.name, "compute_ms": row.cycles / target.clock_hz * 1e3, "latency_ms": row.latency_ms,
            "bound": row.bound, "chip_power_mw": on_chip(target, [row]),
        }  # fmt: skip
        if layer.name in paper.mappings:
            passes = mapped(layer, paper.mappings[layer.name], paper.batch)
            facts_of_layer |= {
                "compute_ms_as_mapped": max(passes) / target.clock_hz * 1e3,
                "sums_bind_as_mapped": passes[1] > passes[0],
                "published_processing_ms": paper.processing_ms[layer.name],
                "published_power_mw": paper.power_of_layers_mw[layer.name],
            }
        rows.append(facts_of_layer)
    if paper.mappings:
        whole = sum(row["compute_ms_as_mapped"] for row in rows)
        published = sum(paper.processing_ms.values())
        facts["processing_ms"] = {"ours": sum(row["compute_ms"] for row in rows), "as_mapped": whole}
        facts["processing_ms"] |= {"published": published, "of_whole": paper.batch / paper.frames_a_second * 1e3}
    return rounded({**facts, "layers": rows})


def on_chip(target: Accelerator, rows: Sequence[Row]) -> float:
    """Return the average power without that of DRAM, which the paper leaves out."""
    energy = sum(row.energy_mj - row.dram_bytes * target.dram_pj * 1e-9 for row in rows)
    return 1e3 * energy / sum(row.latency_ms for row in rows)


def mapped(layer: Layer, how: Mapping, batch: int) -> tuple[float, float]:
    """Return the cycles that the elements take under a mapping, and those that partial sums take one way."""
    ins, outs = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    high, wide = layer.out_size
    filters = up(min(outs, how.m), how.p * how.t) * up(outs, how.m)
    passes = layer.groups * up(high, how.e) * up(batch, how.n) * up(ins, how.q * how.r) * filters
    work = passes * how.n * wide * layer.kernel[1] * how.q * how.p
    sums = layer.groups * batch * outs * high * wide * up(ins, how.q * how.r)
    return work, sums / SUMS_A_CYCLE


def bound_by_sums(layers: Sequence[Layer], channels: int, clock_hz: float) -> float:
    """Return the least milliseconds a sample where each pass adds up so many input channels."""
    sums = (layer.out_channels * layer.positions * up(layer.in_channels // layer.groups, channels) for layer in layers)
    return sum(sums) / SUMS_A_CYCLE / clock_hz * 1e3


def rounded(facts: Any) -> Any:
    """Return the facts with numbers of four digits."""
    if isinstance(facts, dict):
        return {key: rounded(value) for key, value in facts.items()}
    if isinstance(facts, list):
        return [rounded(value) for value in facts]
    return float(f"{facts:.4g}") if isinstance(facts, float) else facts


if __name__ == "__main__":
    main()
