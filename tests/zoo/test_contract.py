"""What holds for every network of the zoo, and so for every one that is added.

The suite tries one of each kind, exported by the older and faster exporter; ``-m slow`` tries all of them, exported as
runs do.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing import zoo
from penjing.core.units import Kept
from penjing.exporting.onnx import export_onnx
from penjing.exporting.verify import check_parity
from penjing.graph.graph import Graph
from penjing.graph.proof import prove
from penjing.graph.surgery import cut
from penjing.graph.trace import plain, trace

SLOW = {
    "alexnet", "densenet121", "mobilenet_v1", "mobilenet_v2", "resnet32", "resnet34", "resnet44", "resnet56",
    "resnet101", "resnet110", "resnet152", "shiftnet56_cifar", "shufflenet_v1", "shufflenet_v2", "squeezenet1_0",
    "squeezenet1_0_cifar", "vgg11", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn", "xception",
}  # fmt: skip
"""Those made of the same blocks as a smaller one, and those of more than 60 million parameters."""

NARROW = {"width": 0.5, "head": 64, "depth": 16, "expansion": 2}
"""What builders are given where they take it."""

CLASSES = 5

SHARE = 0.5
"""How much of the MACs a cut may leave."""

Count = Callable[[nn.Module, Tensor], int]


def test_slow_ones_are_in_the_zoo() -> None:
    assert set(zoo.BUILDERS) >= SLOW


@pytest.mark.parametrize("name", [name for name in zoo.BUILDERS if name not in SLOW])
def test_a_network_is_cut_to_half_proved_trained_and_exported(name: str, tmp_path: Path, macs: Count) -> None:
    through(name, tmp_path / "small.onnx", macs, quick=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.BUILDERS)
def test_every_network_is_cut_to_half_proved_trained_and_exported(name: str, tmp_path: Path, macs: Count) -> None:
    through(name, tmp_path / "small.onnx", macs, quick=False)


def through(name: str, file: Path, macs: Count, quick: bool) -> None:
    """Take a network the whole way."""
    torch.manual_seed(0)
    model = built(name)
    x = torch.randn(4, *smallest(name))
    model(x)  # statistics of its own: with those of the start, batch norm would be as good as absent
    model = plain(model)
    assert not model.training

    graph = trace(model, (x[:2],))
    whole = sum(layer.macs for layer in graph.layers)
    assert whole == macs(model, x)

    kept = planned(graph)
    small = plain(model)
    cut(small, graph, kept)
    assert macs(small, x) == left(graph, kept) <= SHARE * whole
    proof = prove(graph, model, small, kept)
    assert proof.ok, proof.verdict

    taught(small, x)
    assert check_parity(small, export_onnx(small, (x,), {}, file, quick=quick), [(x,)]).relative <= 1e-4


def built(name: str) -> nn.Module:
    builder = getattr(zoo, name)
    takes = inspect.signature(builder).parameters
    model: nn.Module = builder(num_classes=CLASSES, **{key: value for key, value in NARROW.items() if key in takes})
    return model


def smallest(name: str) -> tuple[int, ...]:
    """Return pictures of 64 x 64 where a network for larger ones takes them: one that flattens its maps does not."""
    channels, side, _ = zoo.picture(name)
    fixed = name == "alexnet" or name in ("vgg11", "vgg13", "vgg16", "vgg19")
    return channels, *[side if fixed else min(side, 64)] * 2


def planned(graph: Graph) -> dict[str, Kept]:
    """Keep of every site the same share of its units, drawn at random, the most that ``SHARE`` allows."""
    whole = sum(layer.macs for layer in graph.layers)
    order = {site.name: np.random.default_rng(0).permutation(site.size) for site in graph.sites}
    for share in np.arange(0.98, 0.02, -0.02):
        kept = {name: np.sort(units[: max(1, round(len(units) * share))]) for name, units in order.items()}
        if left(graph, kept) <= SHARE * whole:
            return kept
    raise AssertionError(f"no cut leaves {SHARE:g} of the MACs: {graph.share_free:.0%} of the channels are free")


def left(graph: Graph, kept: dict[str, Kept]) -> int:
    return sum(layer.shrunk(graph.gone(kept)).macs for layer in graph.layers)


def taught(model: nn.Module, x: Tensor) -> None:
    """Take one step of training, which must reach every parameter."""
    model.train()
    F.cross_entropy(model(x), torch.arange(len(x)) % CLASSES).backward()
    lost = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not lost
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
