"""Zeros, and what skipping them brings: after each ReLU, in one layer by its share of zeros, and in a trained network.

    python benchmarks/lccl.py --data CIFAR_FOLDER --models WEIGHTS_FOLDER --out benchmarks/results/lccl

The data folder holds train.npz and test.npz (x: uint8 [N, 32, 32, 3], y), the other ``resnet20_cifar10.safetensors``
and ``resnet56_cifar10.safetensors``. Rows ``zeros_*`` count on validation pictures; ``layer_*`` time one layer of a
known shape, whose map's zeros lie at random, in torch and, computed densely, on ONNX Runtime; ``trained_*`` train a
network with collaborative layers and its twin without, equally long, and compare them on validation pictures: the
digits network, which needs neither folder, and ResNet-20. No row reads test pictures.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from penjing import data as pictures
from penjing import zoo
from penjing.core.registry import build
from penjing.criteria.zeros import average, validation_pictures, zeros_after_relu
from penjing.data.data import Data
from penjing.exporting.measure import measure, ratio
from penjing.exporting.onnx import export_onnx
from penjing.exporting.skipping import race, skippers, skipping
from penjing.graph.collaborative import Collaborative, Partner, attach
from penjing.graph.trace import trace
from penjing.steps.lccl import lccl
from penjing.steps.state import Run, State
from penjing.training.evaluate import evaluate
from rows import arguments, fill

NORMAL = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SHAPES = ((16, 32), (32, 16), (64, 8), (64, 56), (128, 28), (256, 14))
"""Channels in and out, and height and width: the stages of ResNet-20 on CIFAR, and of ResNet-18 on ImageNet."""

SHARES = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
IMAGES = 1024


class Plain(nn.Module):
    """A 3x3 convolution, a batch norm and a ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return what follows the ReLU."""
        return F.relu(self.norm(self.conv(x)))


def zeros(name: str, where: argparse.Namespace) -> dict[str, Any]:
    """Count the zeros after each ReLU of a trained network."""
    model, data = network(name, where), cifar(where)
    found = zeros_after_relu(model, trace(model, (data.example(),), proof=False), validation_pictures(data, IMAGES, 0))
    layers = [{"layer": one.layer, "zero": one.share, "values": one.values} for one in found]
    return {"network": name, "pictures": IMAGES, "zero": average(found), "relus": len(found), "layers": layers}


def layer(channels: int, size: int, batch: int) -> dict[str, Any]:
    """Time one layer, skipping at each share of zeros, against the layer without a map."""
    torch.manual_seed(0)
    plain = Plain(channels).eval()
    x = torch.randn(batch, channels, size, size)
    fused = nn.Sequential(fuse_conv_bn_eval(plain.conv, plain.norm), nn.ReLU()).eval()
    with tempfile.TemporaryDirectory() as folder:
        file = export_onnx(fused, (x,), {}, Path(folder) / "plain.onnx")
        ort = measure({"plain": file}, batch=batch, rounds=20)["plain"].best_ms
    curve = [{"zero": share, **_skipped(plain, fused, x, share)} for share in SHARES]
    gains = [(one["zero"], one["speed-up"]) for one in curve]
    crossed = [a + (b - a) * (1 - fa) / (fb - fa) for (a, fa), (b, fb) in pairwise(gains) if fa < 1 <= fb]
    return {"channels": channels, "size": size, "batch": batch, "onnxruntime ms": ort, "curve": curve,
            "break-even": crossed[0] if crossed else None, "speed-up at 0.9": gains[-1][1]}  # fmt: skip


def _skipped(plain: nn.Module, fused: nn.Module, x: Tensor, share: float) -> dict[str, Any]:
    model = copy.deepcopy(plain)
    attach(model, {"conv": Partner("shared", "norm")})
    conv = model.get_submodule("conv")
    assert isinstance(conv, Collaborative)
    with torch.no_grad():
        nn.init.kaiming_normal_(conv.map.conv.weight)
        conv.map.norm.reset_parameters()
        made = conv.map.conv(x).flatten()
        conv.map.norm.bias.copy_(-made.quantile(share) if share else 1 - made.min())
        fast = skipping(model)
        difference = float((fast(x) - model(x)).abs().max() / model(x).abs().max())
    one = skippers(fast)["conv"]
    found = {"measured zero": one.zeros / one.values, "macs": one.macs / one.dense, "difference": difference}
    timings = race({"plain": fused, "dense": model, "skipping": fast}, [x], rounds=20)
    return found | {
        "plain ms": timings["plain"].median_ms,
        "dense with map ms": timings["dense"].median_ms,
        "skipping ms": timings["skipping"].median_ms,
        "speed-up": ratio(timings["plain"], timings["skipping"]).median,
    }


def trained(name: str, share: float | None, start: str, where: argparse.Namespace) -> dict[str, Any]:
    """Train collaborative layers, and the network without them as long; compare."""
    data = pictures.digits() if name == "digits_net" else cifar(where)
    how: dict[str, Any] = {"epochs": where.epochs, "lr": 0.01, "batch": 32 if name == "digits_net" else 128}
    how |= {"terms": ()} if start == "scratch" else {}
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        state = State(network(name, where), network(name, where), data, ((data.example(),), {}))
        step: Any = lccl(zeros=share, start=start, images=IMAGES, **how)  # type: ignore[arg-type]
        ours = step(state, run).model
        twin = State(_anew(state.model) if start == "scratch" else state.model, *_rest(state))
        other = build("step", {"train": how})(twin, run).model
    (facts,) = run.noted("lccl")
    accuracy = {"before": state.model, "collaborative": ours, "twin": other}
    return {
        "network": name, "start": start, "asked": share, **how, "map zero": facts["map zeros"],
        "macs": facts["macs executed"] / facts["macs before"],
        "validation": {which: evaluate(model, data.val).accuracy for which, model in accuracy.items()},
        "speed-up": facts["latency"]["before"]["median_ms"] / facts["latency"]["skipping"]["median_ms"],
        "lccl": facts,
    }  # fmt: skip


def _anew(model: nn.Module) -> nn.Module:
    from penjing.references import from_new_weights

    return from_new_weights(model, seed=0)


def _rest(state: State) -> tuple[Any, ...]:
    return state.original, state.data, state.example


def network(name: str, where: argparse.Namespace) -> nn.Module:
    """Build a trained network."""
    if name == "digits_net":
        return zoo.digits_net(pretrained=True).eval()
    return zoo.build(name, Path(where.models) / f"{name}_cifar10.safetensors").eval()


def cifar(where: argparse.Namespace) -> Data:
    """Read CIFAR-10 with 5,000 validation pictures cut from train."""
    return pictures.load(where.data, seed=0, val=5000, **NORMAL)


def rows(where: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name all rows."""
    for name in ("resnet20", "resnet56") if where.data and where.models else ():
        yield f"zeros_{name}", partial(zeros, name, where)
    for channels, size in SHAPES:
        for batch in (1, 8):
            yield f"layer_{channels}x{size}_batch{batch}", partial(layer, channels, size, batch)
    for name in ("digits_net", *(("resnet20",) if where.data and where.models else ())):
        for share, start in ((0.5, "warm"), (0.8, "warm"), (None, "scratch")):
            asked = "" if share is None else f"_{share}"
            yield f"trained_{name}_{start}{asked}", partial(trained, name, share, start, where)


def main() -> None:
    """Fill the rows."""
    parser = arguments(__doc__, "benchmarks/results/lccl")
    parser.add_argument("--data", default="", help="a folder with train.npz and test.npz of CIFAR-10")
    parser.add_argument("--models", default="", help="a folder with the weights")
    parser.add_argument("--epochs", type=int, default=6)
    where = parser.parse_args()
    torch.set_num_threads(1)
    fill(where.out, rows(where), where.only)


if __name__ == "__main__":
    main()
