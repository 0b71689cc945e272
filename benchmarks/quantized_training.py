"""What a training step takes in few bits, beside one in floats: ResNet-20, 32 random pictures, one thread.

    python benchmarks/quantized_training.py --out benchmarks/results/quantized_training

A row a method at its usual bits: the processor time of a forward, a backward and what follows a step, divided by that
of the network in floats, measured in turns; the median over the rounds, with the least and the greatest.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing import zoo
from penjing.core.registry import entries
from penjing.graph.quantized import quantized
from penjing.graph.trace import trace
from penjing.steps.quantize import quantize
from rows import arguments, fill

ROUNDS = 9


def step(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the processor seconds of one step, without the optimizer's own."""
    start = time.thread_time()
    F.cross_entropy(model(x), y).backward()
    for layer in quantized(model).values():
        layer.after_step(0.5)
    return time.thread_time() - start


def row(method: str) -> dict[str, Any]:
    """Time a method."""
    torch.manual_seed(0)
    model = zoo.resnet20().eval()
    x, y = torch.randn(32, 3, 32, 32), torch.randint(0, 10, (32,))
    asked, small = quantize(method), copy.deepcopy(model)
    graph = trace(model, (x[:2],), proof=False)
    bits = asked._given()[0][1]
    wanted = {site.name: torch.arange(bits).numpy() for site in asked.change.find(graph)[1:-1]}
    start = time.thread_time()
    asked.change.on((x,)).apply(small, graph, wanted)
    begun = time.thread_time() - start
    model.train()
    small.train()
    shares = []
    for _ in range(ROUNDS):
        floats = step(model, x, y)
        shares.append(step(small, x, y) / floats)
    told = {"median": statistics.median(shares[1:]), "least": min(shares[1:]), "greatest": max(shares[1:])}
    return {"method": method, "bits": bits, "layers": len(quantized(small)), "begun in seconds": begun, **told}


def rows() -> Iterator[tuple[str, Any]]:
    """Name the rows."""
    for method in sorted(entries("quantizer")):
        yield method, partial(row, method)


def main() -> None:
    """Fill the rows."""
    where = arguments(__doc__, "benchmarks/results/quantized_training").parse_args()
    torch.set_num_threads(1)
    fill(where.out, rows(), where.only)


if __name__ == "__main__":
    main()
