"""Packed layers against others on the same machine, a row a layer: what they take, in turns, on one thread.

    python benchmarks/kernels.py --out benchmarks/results/kernels

A row times everybody in turns on one layer, once by the processor time of the thread and once by the wall clock, and
holds the medians over the rounds, with 10 % and 90 % quantiles, and the ratios of rounds, which slow minutes of a
shared machine leave alone. Packed layers read and write float32; packing and padding are part of what is timed. ONNX
Runtime runs a chain of four such layers, of which a fourth counts, so that in 8 bits (QDQ, fused into QLinearConv)
numbers stay whole numbers between layers.

Linear layers of few numbers are compared with plain.c, which is compiled with the same flags, and with torch. For
batches of up to 16, weights are taken out of the caches before each run, as those of a large network are; a round is
then one run. Convolutions of few numbers are compared with torch's.
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
import torch.nn.functional as F
from cffi import FFI
from torch import Tensor, nn

from penjing.core.random import torch_stream
from penjing.exporting.int8 import quantize
from penjing.exporting.measure import Timing, cpu_name, interleave, ratio, summary, timed
from penjing.exporting.onnx import export_onnx
from penjing.exporting.running import _pays
from penjing.exporting.session import as_feeds, session
from penjing.kernels import build, sparse, xnor
from penjing.kernels.codebook import CodebookConv2d, CodebookLinear
from rows import Row, main

CHAIN = 4
ROUNDS = 40
CLOCKS: Mapping[str, Callable[[], float]] = {"cpu": time.thread_time, "wall": time.perf_counter}


@dataclass(frozen=True)
class Runner:
    """Something to time: ``once`` runs so many layers, after ``before``, untimed; ``facts`` say what it is."""

    once: Callable[[], object]
    layers: int = 1
    facts: Mapping[str, Any] | None = None
    before: Callable[[], object] | None = None


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
        samples = _samples(runners, clock)
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


def _samples(runners: Mapping[str, Runner], clock: Callable[[], float]) -> dict[str, list[float]]:
    """Return milliseconds, a number a round."""
    if all(runner.before is None for runner in runners.values()):
        runs = {name: runner.once for name, runner in runners.items()}
        return interleave(runs, rounds=ROUNDS, warmup=3, budget_seconds=60.0, clock=clock)
    samples: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(ROUNDS):
        for name, runner in runners.items():
            runner.once()  # so that all but the weights is warm
            if runner.before is not None:
                runner.before()
            samples[name].append(timed(runner.once, 1, clock))
    return samples


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


@dataclass(frozen=True)
class Product:
    """A linear layer of ``ins`` by ``outs`` numbers on ``count`` rows."""

    count: int
    ins: int
    outs: int

    @property
    def macs(self) -> int:
        """Products in it."""
        return self.count * self.ins * self.outs


COLD = 16
"""The largest batch whose weights come from memory."""

PLAIN = """int best(void); void forget(uintptr_t from, int64_t bytes);
           void plain(int64_t count, int64_t ins, int64_t outs, uintptr_t x, uintptr_t w, uintptr_t y, int path);"""


def codebook_row(product: Product) -> dict[str, Any]:
    """Return the row of a linear layer of few numbers: codes of 1, 2 and 4 bits, against floats."""
    ffi = FFI()
    ffi.cdef(PLAIN)
    plain: Any = ffi.dlopen(str(build.built(Path(__file__).parent / "plain.c", build.folder())))
    count, ins, outs = product.count, product.ins, product.outs
    x, y = torch.randn(count, ins, generator=torch_stream(0, "kernels/x")), torch.empty(count, outs)

    def cold(weights: Tensor) -> Callable[[], object] | None:
        return partial(plain.forget, weights.data_ptr(), weights.nbytes) if count <= COLD else None

    runners = {}
    weight = torch.empty(0)
    for bits in (1, 2, 4):
        random = torch_stream(bits, "kernels/codes")
        codes = torch.randint(2**bits, (outs, ins), generator=random, dtype=torch.uint8)
        table = torch.randn(2**bits, generator=random) * ins**-0.5
        for path in reversed(build.PATHS[: 1 + plain.best()]):
            layer = CodebookLinear(codes, table, threads=1, path=path)
            runners[f"codebook {bits} bits {path}"] = Runner(
                partial(layer, x), facts={"nbytes": layer.nbytes}, before=cold(layer.codes)
            )
        weight = layer.values()
    for number, path in enumerate(build.PATHS[: 1 + plain.best()]):
        once = partial(plain.plain, count, ins, outs, x.data_ptr(), weight.data_ptr(), y.data_ptr(), number)
        once()
        torch.testing.assert_close(y, layer(x), rtol=1e-4, atol=1e-4)
        runners[f"plain {path}"] = Runner(once, facts={"nbytes": weight.nbytes}, before=cold(weight))
    runners["torch"] = Runner(partial(F.linear, x, weight), before=cold(weight))
    against = [f"plain {build.PATHS[plain.best()]}", "torch"]
    return {"layer": f"{count} x {ins} x {outs}", "cold": count <= COLD, **compared(runners, product.macs, against)}


@dataclass(frozen=True)
class Window:
    """A convolution for which ``exporting/running.py`` must decide whether it runs by look-up."""

    ins: int
    outs: int
    size: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    images: int = 1

    @property
    def name(self) -> str:
        """That of its row."""
        turns = f"{self.kernel}x{self.kernel}-stride{self.stride}-groups{self.groups}"
        return f"codebook-conv-{self.images}x{self.ins}-{self.outs}-{self.size}-{turns}"


def window_row(window: Window) -> dict[str, Any]:
    """Return the row of a convolution of 16 numbers, against torch's own on as many threads."""
    random = torch_stream(0, "kernels/codes")
    shape = window.outs, window.ins // window.groups, window.kernel, window.kernel
    codes = torch.randint(16, shape, generator=random, dtype=torch.uint8)
    layer = CodebookConv2d(
        codes, torch.randn(16, generator=random), stride=window.stride, padding=window.kernel // 2,
        groups=window.groups, threads=1,
    )  # fmt: skip
    x, weight = torch.randn(window.images, window.ins, window.size, window.size, generator=random), layer.values()
    once = partial(F.conv2d, x, weight, layer.bias, window.stride, window.kernel // 2, 1, window.groups)
    torch.testing.assert_close(layer(x), once(), rtol=1e-3, atol=1e-3)
    runners = {"codebook": Runner(partial(layer, x), facts={"nbytes": layer.nbytes}), "torch": Runner(once)}
    macs = codes[0].numel() * once().numel()
    return {"layer": repr(window), "pays": _pays(shape, window.groups), **compared(runners, macs, ["torch"])}


PRODUCTS = Product(1, 4608, 512), Product(1, 9216, 4096), Product(16, 4608, 512), Product(196, 2304, 256)
WINDOWS = (
    Window(256, 256, 14), Window(512, 512, 7), Window(512, 512, 4), Window(1024, 256, 14, 1), Window(512, 2048, 7, 1),
    Window(128, 128, 28), Window(128, 128, 56, stride=2), Window(256, 1024, 14, 1), Window(64, 64, 56),
    Window(64, 256, 56, 1), Window(128, 128, 28, groups=4), Window(16, 16, 32),
    Window(256, 256, 14, images=8), Window(1024, 256, 14, 1, images=8),
)  # fmt: skip
"""First those, of ResNets, that run by look-up; then those that do not; and batches."""


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
    codes = [(f"codebook-{p.count}x{p.ins}x{p.outs}", partial(codebook_row, p)) for p in PRODUCTS]
    return [*signs, *few, *codes, *((w.name, partial(window_row, w)) for w in WINDOWS)]


if __name__ == "__main__":
    with torch.no_grad():
        main(__doc__, "runs/kernels", rows)
