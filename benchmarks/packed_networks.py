"""VGG-16 of signs, and with zeros, as loaded, against ONNX Runtime: whole networks in turns, batch 1, one thread.

    python benchmarks/packed_networks.py --out benchmarks/results/kernels

Weights are random, and so are the zeros, in all convolutions but the first; what is timed does not depend on what the
network knows. It runs as a loaded one does (``run_packed``), batch norms taken in, in PyTorch but for its packed
layers; ``alone`` are sparse convolutions, and their ReLUs, on what they read in the network, against the whole of ONNX
Runtime, which runs the network of floats, in floats and in int8.
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
from penjing.exporting.int8 import quantize
from penjing.exporting.onnx import export_onnx
from penjing.exporting.running import run_packed
from penjing.exporting.session import as_feeds, session
from penjing.graph.quantized import Precision
from penjing.graph.trace import trace
from penjing.kernels import build, sparse
from penjing.kernels import xnor as signs
from penjing.quantizers.xnor import xnor
from penjing.rewrites.rounded import xnor as rounded
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


def dense(model: nn.Module, x: Tensor) -> dict[str, Runner]:
    """Return the network on ONNX Runtime, in floats and in int8."""
    made = {}
    with TemporaryDirectory() as folder:
        plain, whole = Path(folder) / "dense.onnx", Path(folder) / "int8.onnx"
        export_onnx(model, (x,), None, plain, dynamic_batch=False, quick=True)
        random = torch_stream(3, "sparse-network")
        quantize(plain, whole, [torch.randn(x.shape, generator=random) for _ in range(32)])
        for name, path in (("onnxruntime fp32", plain), ("onnxruntime int8", whole)):
            running = session(path)
            made[name] = Runner(partial(running.run, None, as_feeds(running, x)))
    return made


def row_of(zeros: float) -> dict[str, Any]:
    """Return the row of one sparsity."""
    torch.set_num_threads(1)
    model, x = network(zeros), torch.randn(1, *SHAPE, generator=torch_stream(1, "sparse-network"))
    right = model(x)
    runners = dense(model, x)
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
    return {"network": f"vgg16_bn, {zeros:.0%} zeros", **compared(runners, macs, list(runners)[:2])}


def signs_row() -> dict[str, Any]:
    """Return the row of the network whose layers, but the first and last, are of signs."""
    torch.set_num_threads(1)
    model, x = vgg16_bn().eval(), torch.randn(1, *SHAPE, generator=torch_stream(1, "sparse-network"))
    runners = dense(model, x)
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)][1:]
    made = copy.deepcopy(model)
    pictures = torch.randn(16, *SHAPE, generator=torch_stream(2, "sparse-network"))
    rounded().on((pictures,)).put(made, {name: Precision(xnor(), 1) for name in layers})
    library = build.load("xnor", signs.DECLARATIONS)
    for path in build.PATHS[: 1 + library.path()] if library else ():
        packed = run_packed(copy.deepcopy(made), (SHAPE,))
        found = [module for module in packed.modules() if isinstance(module, signs.XnorConv2d)]
        assert len(found) == len(layers)
        for layer in found:
            layer.path, layer.threads = path, 1
        runners[f"signs {path}"] = Runner(partial(packed, x), facts={"bytes": sum(layer.nbytes for layer in found)})
    macs = sum(layer.macs for layer in trace(model, (x.repeat(2, 1, 1, 1),), proof=False).layers)
    return {"network": "vgg16_bn, signs", **compared(runners, macs, list(runners)[:2])}


def rows(where: argparse.Namespace) -> list[Row]:
    """Return every row: its name, and what makes it."""
    return [
        ("xnor-vgg16", signs_row),
        *((f"sparse{round(100 * zeros)}-vgg16", partial(row_of, zeros)) for zeros in ZEROS),
    ]


if __name__ == "__main__":
    with torch.no_grad():
        main(__doc__, "runs/kernels", rows)
