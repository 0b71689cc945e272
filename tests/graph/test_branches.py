"""Gates on blocks: closed they leave the shortcut, in between they fold, and what cannot bear one is left out."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from penjing.graph import branches
from penjing.graph.blocks import take_out
from penjing.graph.trace import plain, trace
from penjing.zoo.resnet import CifarResNet

X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CifarResNet(2, 3, "A")
        with torch.no_grad():
            model(torch.randn(32, 3, 16, 16))
    return plain(model)


def test_the_last_norm_of_each_block_bears_the_gate(net: nn.Module) -> None:
    ends = branches.ends_of(net, trace(net, (X,), proof=False))
    assert ends == {name: (f"{name}.bn2",) for name in ("layer1.0", "layer1.1", "layer2.1", "layer3.1")}


@torch.no_grad()
def test_a_closed_gate_leaves_the_shortcut_and_others_fold(net: nn.Module) -> None:
    graph = trace(net, (X,), proof=False)
    ends = branches.ends_of(net, graph)
    gates = {name: torch.tensor([value]) for name, value in zip(ends, (0.0, 0.3, 1.0, 0.0), strict=True)}
    model = copy.deepcopy(net)
    handles = branches.attach(model, ends, lambda: gates)
    gated = model(X)
    for handle in handles:
        handle.remove()
    assert torch.equal(model(X), net(X)) and not torch.allclose(gated, net(X))
    branches.fold(model, ends, gates)
    assert torch.allclose(model(X), gated, atol=1e-6)
    take_out(model, ["layer1.0", "layer3.1"])
    assert torch.allclose(model(X), gated, atol=1e-6)


class Scaled(nn.Module):
    """A block whose branch ends in a scale of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.gamma = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.gamma * self.conv(x)


def test_a_block_that_ends_in_something_else_bears_none() -> None:
    model = nn.Sequential(Scaled(), nn.Conv2d(3, 2, 1)).eval()
    graph = trace(model, (X,))
    assert list(graph.blocks) == ["0"] and branches.ends_of(model, graph) == {}
