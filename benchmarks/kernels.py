"""Packed layers against ONNX Runtime on the same machine, a row a layer: what they take, in turns, on one thread.

    python benchmarks/kernels.py --out benchmarks/results/kernels

A row times everybody in turns on one layer, once by the processor time of the thread and once by the wall clock, and
holds the medians over the rounds, with 10 % and 90 % quantiles, and the ratios of rounds, which slow minutes of a
shared machine leave alone. Packed layers read and write float32; packing and padding are part of what is timed. ONNX
Runtime runs a chain of four such layers, of which a fourth counts, so that in 8 bits (QDQ, fused into QLinearConv)
numbers stay whole numbers between layers.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core.random import torch_stream
from penjing.exporting.int8 import quantize
from penjing.exporting.measure import Timing, cpu_name, interleave, ratio, summary
from penjing.exporting.onnx import export_onnx
from penjing.exporting.session import as_feeds, session
from penjing.kernels import build, sparse, xnor
from rows import Row, main

CHAIN = 4
ROUNDS = 40
CLOCKS: Mapping[str, Callable[[], float]] = {"cpu": time.thread_time, "wall": time.perf_counter}


@dataclass(frozen=True)
class Runner:
    """Something to time: ``once`` runs so many layers; ``facts`` say what it is."""

    once: Callable[[], object]
    layers: int = 1
    facts: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Conv:
    """A convolution with as many channels in as out, on square pictures, batch 1, padded to keep their size."""

    channels: int
    size: int
    kernel: int = 3

    def module(self, seed: int) -> nn.Conv2d:
        """Return it with weights that keep the size of numbers."""
        layer = nn.Conv2d(self.channels, self.channels, self.kernel, padding=self.kernel // 2)
        fan = self.channels * self.kernel**2
        with torch.no_grad():
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=torch_stream(seed, "kernels")) * fan**-0.5)
        return layer

    def pictures(self, count: int) -> Tensor:
        """Return normal numbers."""
        return torch.randn(count, self.channels, self.size, self.size, generator=torch_stream(0, "kernels/x"))

    @property
    def macs(self) -> int:
        """Products in one layer."""
        return self.channels**2 * self.kernel**2 * self.size**2


def onnxruntime_runners(conv: Conv) -> dict[str, Runner]:
    """Return a chain of the layer on ONNX Runtime, in 32-bit floats and in 8-bit whole numbers."""
    chain = nn.Sequential(*(conv.module(seed) for seed in range(CHAIN))).eval()
    made = {}
    with TemporaryDirectory() as folder:
        plain, rounded = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        export_onnx(chain, (conv.pictures(1),), None, plain, dynamic_batch=False, quick=True)
        quantize(plain, rounded, [conv.pictures(1) for _ in range(32)])
        for name, path in (("onnxruntime fp32", plain), ("onnxruntime int8", rounded)):
            running = session(path)
            feeds = as_feeds(running, conv.pictures(1))
            made[name] = Runner(partial(running.run, None, feeds), CHAIN, {"operators": _fused(path)})
    return made


def _fused(path: Path) -> dict[str, int]:
    """Return which operators ONNX Runtime runs, after it has fused them."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(path.with_suffix(".fused.onnx"))
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return dict(Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node))


def xnor_runners(conv: Conv) -> dict[str, Runner]:
    """Return the layer of signs on each path that this processor has."""
    weight, x = conv.module(0).weight.detach(), conv.pictures(1)
    library = build.load("xnor", xnor.DECLARATIONS)
    made = {}
    for path in build.PATHS[: 1 + library.path()] if library else ():
        layer = xnor.XnorConv2d(
            weight >= 0, weight.abs().mean((1, 2, 3)), torch.zeros(conv.channels), padding=conv.kernel // 2,
            threads=1, path=path,
        )  # fmt: skip
        assert torch.equal(layer(x), layer.reference(x))
        made[f"xnor {path}"] = Runner(partial(layer, x))
    return made


def sparse_runners(conv: Conv, density: float) -> dict[str, Runner]:
    """Return the layer with so many weights, drawn at random, on each path that this processor has."""
    weight, x = conv.module(0).weight.detach(), conv.pictures(1)
    there = torch.rand(weight.shape, generator=torch_stream(1, "kernels/where")) < density
    library = build.load("sparse", sparse.DECLARATIONS)
    made = {}
    for path in build.PATHS[: 1 + library.path()] if library else ():
        layer = sparse.SparseConv2d(weight * there, padding=conv.kernel // 2, threads=1, path=path)
        torch.testing.assert_close(layer(x), layer.reference(x), rtol=1e-4, atol=1e-4)
        made[f"sparse {path}"] = Runner(partial(layer, x), facts={"density": layer.density, "bytes": layer.nbytes})
    return made


def compared(runners: Mapping[str, Runner], macs: int, against: Iterable[str]) -> dict[str, Any]:
    """Time everybody in turns; say how many times as long as the others those in ``against`` take."""
    found: dict[str, Any] = {"layer_macs": macs}
    against = [name for name in against if name in runners]
    for kind, clock in CLOCKS.items():
        runs = {name: runner.once for name, runner in runners.items()}
        samples = interleave(runs, rounds=ROUNDS, warmup=3, budget_seconds=60.0, clock=clock)
        times: dict[str, Timing] = {
            name: summary([ms / runners[name].layers for ms in taken], 1, 1, kind, name, cpu_name())
            for name, taken in samples.items()
        }
        for name, timing in times.items():
            facts = found.setdefault(name, dict(runners[name].facts or {}))
            facts[kind] = {
                "median_ms": timing.median_ms, "low_ms": timing.low_ms, "high_ms": timing.high_ms,
                "best_ms": timing.best_ms, "rounds": len(timing.samples),
                "gmacs_per_s": macs / timing.median_ms / 1e6,
            }  # fmt: skip
            for other in against:
                if other != name:
                    held = ratio(times[other], timing)
                    facts[kind][f"speed against {other}"] = {
                        "median": held.median, "low": held.low, "high": held.high
                    }  # fmt: skip
    return found


def row_of(conv: Conv, make: Callable[[Conv], Mapping[str, Runner]]) -> dict[str, Any]:
    """Return the row of one layer: what ``make`` packs, against ONNX Runtime."""
    against = onnxruntime_runners(conv)
    found = compared({**against, **make(conv)}, conv.macs, against)
    return {
        "layer": f"{conv.channels} channels, {conv.kernel}x{conv.kernel}, {conv.size}x{conv.size}, batch 1",
        **found,
    }


LAYERS = (Conv(256, 14), Conv(64, 56), Conv(128, 28), Conv(512, 7), Conv(256, 14, 1))
"""First the layer that goals are set for; then those of a ResNet-18, and of one tap."""


DENSITIES = (0.2, 0.1, 0.05)


def rows(where: argparse.Namespace) -> list[Row]:
    """Return every row: its name, and what makes it."""

    def name(conv: Conv) -> str:
        return f"{conv.channels}-{conv.size}-{conv.kernel}x{conv.kernel}"

    signs = [(f"xnor-{name(conv)}", partial(row_of, conv, xnor_runners)) for conv in LAYERS]
    few = [
        (
            f"sparse{round(100 * (1 - density))}-{name(conv)}",
            partial(row_of, conv, partial(sparse_runners, density=density)),
        )
        for conv in LAYERS
        for density in DENSITIES
    ]
    return [*signs, *few]


if __name__ == "__main__":
    with torch.no_grad():
        main(__doc__, "runs/kernels", rows)
