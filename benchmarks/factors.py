"""How long factoring takes: Tucker-2 with EVBMF's ranks over every layer of ResNet-50, on 2 threads.

    python benchmarks/factors.py --out benchmarks/results/factors.json

Weights are random with singular values that fall exponentially along both channel axes, and noise, so that EVBMF
finds ranks between the extremes. Kernels of one tap and the first layer get svd, as Tucker-2 leaves them. Nothing else
should run on the machine; the processor time tells whether that was so.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core.files import write_whole
from penjing.core.random import torch_stream
from penjing.factors.layer import read
from penjing.factors.ranks import by_evbmf
from penjing.factors.side_by_side import side_by_side
from penjing.factors.svd import svd
from penjing.factors.tucker2 import tucker2
from penjing.zoo import resnet50
from rows import machine

FALL, NOISE = 8.0, 0.02


def decaying(shape: torch.Size, name: str) -> Tensor:
    """Return weights of this shape whose channel spectra fall by e^-FALL from first to last, and noise."""
    random = torch_stream(0, f"benchmarks/factors/{name}")
    weight = torch.randn(shape, generator=random)
    for axis in (0, 1):
        n = shape[axis]
        basis, _ = torch.linalg.qr(torch.randn(n, n, generator=random))
        fall = torch.exp(-FALL * torch.arange(n) / n)
        weight = torch.tensordot(basis * fall, weight.movedim(axis, 0), 1).movedim(0, axis)
    weight = weight / weight.std()
    return (weight + NOISE * torch.randn(shape, generator=random)) * (2 / weight[0].numel()) ** 0.5


@torch.no_grad()
def main() -> None:
    """Factor every layer once and write down how long each took, its ranks and what it costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/factors.json"))
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = resnet50().eval()
    sizes: dict[str, tuple[int, ...]] = {}
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    for name, module in layers.items():
        module.weight.copy_(decaying(module.weight.shape, name))
        module.register_forward_pre_hook(lambda _, x, n=name: sizes.update({n: tuple(x[0].shape[2:])}))
    model(torch.zeros(1, 3, 224, 224))

    def factored(name: str) -> dict[str, Any]:
        spec, module = read(layers[name], name), layers[name]
        one = svd() if tucker2().refuses(spec) else tucker2()
        start = time.perf_counter()
        ranks = by_evbmf(one.spectra(module, name))
        middle = time.perf_counter()
        one.split(module, ranks, name)
        return {
            "layer": name, "shape": str(spec), "by": one.name, "ranks": ranks, "full": one.full(spec),
            "choosing_s": middle - start, "factoring_s": time.perf_counter() - middle,
            "pays": one.pays(spec, ranks, sizes[name]),
            "macs": spec.macs(sizes[name]), "factored_macs": one.cost(spec, ranks, sizes[name]).macs,
        }  # fmt: skip

    needs = [svd().memory(read(module, name)) for name, module in layers.items()]
    start, used = time.perf_counter(), time.process_time()
    rows = side_by_side(factored, list(layers), needs, "factorising")
    seconds, cpu = time.perf_counter() - start, time.process_time() - used
    slowest = max(rows, key=lambda row: row["choosing_s"] + row["factoring_s"])
    facts = {"seconds": seconds, "cpu_seconds": cpu, "rows": rows, **machine(), "date": time.strftime("%Y-%m-%d")}
    write_whole(given.out, json.dumps(facts, indent=1).encode())
    print(
        f"{len(rows)} layers in {seconds:.1f} s on {given.threads} threads, {cpu:.1f} s of processor time; "
        f"the slowest is {slowest['layer']}"
    )


if __name__ == "__main__":
    main()
