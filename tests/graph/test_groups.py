"""Groups of weights: how many there are, what they own, and the closed form of their shrinking."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from penjing.graph.groups import Groups, groups_of
from penjing.graph.trace import plain, trace
from penjing.zoo.resnet import CifarResNet
from tiny import tiny

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_what_filters_channels_and_shapes_own() -> None:
    model = tiny().eval()
    graph, parameters = trace(model, (X,)), dict(model.named_parameters())
    sites = [graph.site("conv1")]
    (filters,) = groups_of(graph, "filters", sites, (), parameters)
    (channels,) = groups_of(graph, "channels", sites, (), parameters)
    assert len(filters.norms(parameters)) == len(channels.norms(parameters)) == 32
    assert filters.each == 16 * 9 + 2 and channels.each == 16 * 9
    w = torch.cat([model.conv1.weight.flatten(1), model.bn1.weight[:, None], model.bn1.bias[:, None]], 1)
    assert torch.allclose(filters.norms(parameters), w.norm(dim=1))
    assert torch.allclose(channels.norms(parameters), model.conv2.weight.transpose(0, 1).flatten(1).norm(dim=1))
    shapes = {one.where: one for one in groups_of(graph, "shapes", (), (), parameters)}
    assert set(shapes) == {"stem.weight", "conv1.weight", "conv2.weight"}
    assert torch.allclose(shapes["conv1.weight"].norms(parameters), model.conv1.weight.flatten(1).norm(dim=0))
    assert len(shapes["conv1.weight"].norms(parameters)) == 16 * 9


def test_a_block_is_one_group_of_all_that_it_holds() -> None:
    model = plain(CifarResNet(2, 3, "A"))
    x = torch.randn(4, 3, 16, 16)
    graph, parameters = trace(model, (x,), proof=False), dict(model.named_parameters())
    (block,) = groups_of(graph, "depth", (), ["layer1.1"], parameters)
    assert block.each == sum(p.numel() for p in model.layer1[1].parameters())
    block.shrink(parameters, 1e9)
    with torch.no_grad():
        read = torch.relu(torch.randn(2, 16, 8, 8))
        assert torch.equal(model.layer1[1](read), read)


@pytest.mark.parametrize(("by", "left"), [(0.5, 1.5), (2.0, 0.0), (3.0, 0.0)])
def test_a_group_of_norm_two(by: float, left: float) -> None:
    w = nn.Parameter(torch.tensor([[2.0, 0.0], [0.0, 4.0]]))
    groups = Groups("filters", "w", (("w", torch.tensor([[0, 1], [2, 3]])),))
    groups.shrink({"w": w}, by)
    assert w.tolist() == [[left, 0.0], [0.0, 4.0 - by]]


def test_the_largest_are_spared() -> None:
    w = nn.Parameter(torch.tensor([1.0, 3.0, 2.0]))
    Groups("filters", "w", (("w", torch.arange(3).view(3, 1)),), spared=2).shrink({"w": w}, 9.0)
    assert w.tolist() == [0.0, 3.0, 2.0]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31 - 1), st.floats(0.01, 3.0))
def test_the_shrunk_group_minimises_what_it_should(seed: int, by: float) -> None:
    """½ ‖v - w‖² + by ‖v‖ is least at the shrunk w: no neighbour is lower."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(1, 5, generator=generator, dtype=torch.float64)
    v = nn.Parameter(w.clone())
    Groups("filters", "v", (("v", torch.arange(5).view(1, 5)),)).shrink({"v": v}, by)

    def objective(at: torch.Tensor) -> float:
        return float(0.5 * (at - w).square().sum() + by * at.norm())

    for _ in range(10):
        near = v.detach() + 1e-3 * torch.randn(1, 5, generator=generator, dtype=torch.float64)
        assert objective(v.detach()) <= objective(near) + 1e-12


def test_tensors_in_another_layout_keep_it() -> None:
    model = tiny().eval()
    graph = trace(model, (X,))
    model.to(memory_format=torch.channels_last)
    parameters, plain_ = dict(model.named_parameters()), dict(tiny().named_parameters())
    for one in groups_of(graph, "shapes", (), (), parameters):
        one.shrink(parameters, 0.1)
        one.shrink(plain_, 0.1)
    assert parameters["conv1.weight"].is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(parameters["conv1.weight"], plain_["conv1.weight"], atol=1e-7)
