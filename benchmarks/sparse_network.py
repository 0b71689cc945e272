"""A sparse VGG-16 against ONNX Runtime, which computes its zeros: whole networks in turns, batch 1, on one thread.

    python benchmarks/sparse_network.py --out benchmarks/results/kernels

Weights are random, and so are the zeros, in all convolutions but the first; what is timed does not depend on what the
network knows. It runs as a loaded one does (``run_packed``), batch norms taken in, in PyTorch but for its sparse
convolutions; ``alone`` are these, and their ReLUs, on what they read in the network, against the whole of ONNX Runtime.
"""

from __future__ import annotations

import argparse
import copy
import math
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from kernels import Runner, compared
from penjing.core.random import torch_stream
from penjing.exporting.onnx import export_onnx
from penjing.exporting.running import run_packed
from penjing.exporting.session import as_feeds, session
from penjing.kernels import build, sparse
from penjing.zoo import vgg16_bn
from rows import Row, main

SHAPE = (3, 32, 32)
CONVOLUTIONS = 13
ZEROS = (0.8, 0.9, 0.95)


def network(zeros: float) -> nn.Module:
    """Return the network, so much of each of whose convolutions is zero, behind the first."""
    random = torch_stream(0, "sparse-network")
    model = vgg16_bn().eval()
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    for convolution in convolutions[1:]:
        weight = convolution.weight.flatten()
        empty = torch.randperm(len(weight), generator=random)[: math.ceil(zeros * len(weight))]
        weight[empty] = 0.0
    return model


def sparse_layers(model: nn.Module, path: str) -> list[sparse.SparseConv2d]:
    """Return the sparse convolutions of a network, held to a path and one thread."""
    found = [module for module in model.modules() if isinstance(module, sparse.SparseConv2d)]
    for layer in found:
        layer.path, layer.threads = path, 1
    return found


def read_by(model: nn.Module, layers: list[sparse.SparseConv2d], x: Tensor) -> list[Tensor]:
    """Return what each layer reads when the network runs."""
    seen: dict[int, Tensor] = {}
    hooks = [
        layer.register_forward_hook(lambda layer, given, _: seen.update({id(layer): given[0]})) for layer in layers
    ]
    model(x)
    for hook in hooks:
        hook.remove()
    return [seen[id(layer)] for layer in layers]


def one_after_the_other(layers: list[sparse.SparseConv2d], inputs: list[Tensor]) -> None:
    """Run layers and their ReLUs."""
    for layer, given in zip(layers, inputs, strict=True):
        layer(given).relu_()


def row_of(zeros: float) -> dict[str, Any]:
    """Return the row of one sparsity."""
    torch.set_num_threads(1)
    model, x = network(zeros), torch.randn(1, *SHAPE, generator=torch_stream(1, "sparse-network"))
    right = model(x)
    with TemporaryDirectory() as folder:
        export_onnx(model, (x,), None, Path(folder) / "dense.onnx", dynamic_batch=False, quick=True)
        running = session(Path(folder) / "dense.onnx")
    runners = {"onnxruntime fp32": Runner(partial(running.run, None, as_feeds(running, x)))}
    library = build.load("sparse", sparse.DECLARATIONS)
    for path in build.PATHS[: 1 + library.path()] if library else ():
        packed = run_packed(copy.deepcopy(model), (SHAPE,))
        layers = sparse_layers(packed, path)
        assert len(layers) == CONVOLUTIONS - 1  # or some would be compared with all of ONNX Runtime
        torch.testing.assert_close(packed(x), right, rtol=1e-4, atol=1e-4)
        inputs = read_by(packed, layers, x)
        facts = {"sparse_layers": len(layers), "bytes": sum(layer.nbytes for layer in layers)}
        runners[f"sparse {path}"] = Runner(partial(packed, x), facts=facts)
        runners[f"sparse {path} alone"] = Runner(partial(one_after_the_other, layers, inputs))
    macs = sum(
        layer.out_channels * layer.in_channels * layer.taps * given.shape[2] * given.shape[3]
        for layer, given in zip(layers, inputs, strict=True)
    )
    return {"network": f"vgg16_bn, {zeros:.0%} zeros", **compared(runners, macs, ["onnxruntime fp32"])}


def rows(where: argparse.Namespace) -> list[Row]:
    """Return every row: its name, and what makes it."""
    return [(f"sparse{round(100 * zeros)}-vgg16", partial(row_of, zeros)) for zeros in ZEROS]


if __name__ == "__main__":
    with torch.no_grad():
        main(__doc__, "runs/kernels", rows)
