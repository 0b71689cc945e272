from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from nets.hostile import HOSTILE
from penjing.graph.graph import Graph
from penjing.graph.tap import Tap
from penjing.graph.trace import trace

from .checks import hostile, outputs

UNSEEN = {
    "attention_module": "its projections happen inside one of torch's own functions",
}


def heard(model: nn.Module, graph: Graph, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[int, Any, Any]]:
    calls: list[tuple[int, Any, Any]] = []
    with torch.no_grad(), Tap(model, graph, after=lambda i, x, y: calls.append((i, x.detach().clone(), y.clone()))):
        model(*args, **kwargs)
    return calls


@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in UNSEEN])
def test_every_layer_is_heard_once_in_order_with_its_channels(name: str) -> None:
    net = hostile(name)
    layers, graph = net.graph.layers, net.graph
    calls = heard(net.model, graph, net.args, net.kwargs)
    assert [i for i, _, _ in calls] == list(range(len(layers)))
    for i, x, y in calls:
        assert x.shape[graph.reading_dims[i]] == layers[i].in_channels, layers[i].name
        assert y.shape[graph.writing_dims[i]] == layers[i].out_channels, layers[i].name


def test_a_silent_tap_changes_nothing() -> None:
    for name in ("residual", "einsum_classifier", "matmul_projection", "dynamic_convolution", "outputs_dict"):
        net = hostile(name)
        example = (net.args, net.kwargs)
        with Tap(net.model, net.graph):
            tapped = outputs(net.model, example)
        assert all(torch.equal(a, b) for a, b in zip(tapped, outputs(net.model, example), strict=True))


@pytest.mark.parametrize(
    "name",
    ["plain_chain", "residual", "einsum_classifier", "matmul_projection", "transposed_weight_tying", "scaled_kernel"],
)
def test_what_before_returns_is_read(name: str) -> None:
    """Zeros at the last layer leave its bias, zeros at all layers leave the last bias too."""
    net = hostile(name)
    last = len(net.graph.layers) - 1
    with torch.no_grad(), Tap(net.model, net.graph, before=lambda i, x: torch.zeros_like(x) if i == last else x):
        (y,) = outputs(net.model, (net.args, net.kwargs))
    assert torch.equal(y[0], y[1])


def test_inputs_are_those_that_module_hooks_see() -> None:
    net = hostile("inverted_residual")
    seen: list[Tensor] = []
    handles = [
        m.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].clone()))
        for m in net.model.modules()
        if isinstance(m, _ConvNd | nn.Linear)
    ]
    calls = heard(net.model, net.graph, net.args, net.kwargs)
    for handle in handles:
        handle.remove()
    assert len(seen) == len(calls) and all(torch.equal(a, x) for a, (_, x, _) in zip(seen, calls, strict=True))


class Functional(nn.Module):
    """Layers in every form a forward can take, in an order that no name gives away."""

    basis: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(6, 3, 1, 1))
        self.scale = nn.Parameter(torch.randn(7))
        self.base = nn.Parameter(torch.randn(7, 6))
        self.square, self.vector = nn.Parameter(torch.randn(7, 7)), nn.Parameter(torch.randn(7))
        self.bias = nn.Parameter(torch.randn(9))
        self.wide = nn.Parameter(torch.randn(7, 9))
        self.out = nn.Linear(9, 4)
        self.register_buffer("basis", torch.randn(9, 9))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(input=x, weight=self.kernel).mean((2, 3))  # 0, by keyword
        x = x @ (self.scale[:, None] * self.base).t()  # 1, a computed weight
        x = self.square @ x.t()  # 2, the weight on the left
        x = x.t() * (x.t() @ self.vector)[:, None]  # a weight, but no layer
        x = torch.addmm(self.bias, x, self.wide)  # 3
        x = x @ self.basis  # 4, a buffer
        return F.linear(F.linear(x, self.out.weight), self.out.weight.t()) + torch.einsum("nc,kc->nk", x, self.basis)


def test_functional_and_computed_layers_are_told_apart() -> None:
    net = Functional()
    x = torch.randn(2, 3, 4, 4)
    graph = trace(net, (x,))
    assert [layer.weight for layer in graph.layers] == ["kernel", "", "square", "wide", "", "out.weight", "", ""]
    calls = heard(net, graph, (x,), {})
    assert [i for i, _, _ in calls] == list(range(8))
    widths = [(3, 6), (6, 7), (7, 7), (7, 9), (9, 9), (9, 4), (4, 9), (9, 9)]
    dims = [(x.shape[graph.reading_dims[i]], y.shape[graph.writing_dims[i]]) for i, x, y in calls]
    assert dims == widths == [(layer.in_channels, layer.out_channels) for layer in graph.layers]


def test_a_module_used_twice_is_two_layers_and_each_forward_begins_anew() -> None:
    net = hostile("same_block_twice")
    names = [layer.name for layer in net.graph.layers]
    assert names.count("block.0.0") == 2
    first = [i for i, name in enumerate(names) if name == "block.0.0"]
    sizes: list[tuple[int, ...]] = []
    tap = Tap(net.model, net.graph, after=lambda i, x, _: sizes.append(tuple(x.shape[2:])) if i in first else None)
    for _ in range(2):
        with torch.no_grad(), tap:
            net.model(*net.args)
    assert sizes == [(8, 8), (4, 4)] * 2
    assert [net.graph.layers[i].in_size for i in first] == [(8, 8), (4, 4)]


def test_gradients_flow_through_what_before_returns() -> None:
    net = hostile("plain_chain")
    read: list[Tensor] = []

    def before(_: int, x: Tensor) -> Tensor:
        read.append(x.view_as(x))
        if read[-1].requires_grad:
            read[-1].retain_grad()
        return read[-1]

    with Tap(net.model, net.graph, before=before):
        net.model(*net.args).square().sum().backward()
    assert all(x.grad is not None and x.grad.any() for x in read[1:]) and len(read) == len(net.graph.layers)
    net.model.zero_grad()
